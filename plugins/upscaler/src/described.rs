//! What the host says of a file's network, as far as it matters to an upscaler or a restorer.

use std::collections::BTreeMap;

use latentd_plugin_api::{Error, Result};
use serde::Deserialize;

#[derive(Deserialize)]
struct Told {
    kind: String,
    entries: BTreeMap<String, Part>,
}

#[derive(Deserialize)]
struct Part {
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

#[derive(Deserialize)]
struct Port {
    name: String,
    sizes: Vec<Size>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Size {
    Fixed(u64),
    /// "height", "4 height".
    Free(String),
}

impl Size {
    fn fixed(&self) -> Option<u64> {
        match self {
            Self::Fixed(size) => Some(*size),
            Self::Free(_) => None,
        }
    }

    /// How many times a name.
    fn times(&self) -> Option<u32> {
        match self {
            Self::Free(text) => text.split_once(' ')?.0.parse().ok(),
            Self::Fixed(_) => None,
        }
    }
}

/// What `describe` of `network/draft-1` gives.
fn told(map: &[u8]) -> Result<Told> {
    rmp_serde::from_slice(map)
        .map_err(|error| Error::failed(format!("what the host says of a network cannot be read: {error}")))
}

/// What a network is.
pub fn kind(map: &[u8]) -> Result<String> {
    Ok(told(map)?.kind)
}

/// A network that restores faces.
pub struct FaceRestorer {
    /// Sides of a face.
    pub side: usize,
    /// Whether it takes a weight.
    pub is_weighted: bool,
}

impl FaceRestorer {
    /// Of what `describe` of `network/draft-1` gives.
    pub fn of(map: &[u8]) -> Result<Self> {
        let told = told(map)?;
        let is_weighted = told.kind == "codeformer";
        let face = told.entries.get("").and_then(|whole| whole.inputs.first());
        let side = face.and_then(|face| face.sizes.last()?.fixed());
        match side {
            Some(side) if is_weighted || told.kind == "gfpgan" => {
                Ok(Self { side: side as usize, is_weighted })
            }
            _ => Err(Error::model(format!(
                "it is a network of kind '{}', which restores no faces; GFPGAN 1.2 to 1.4 and CodeFormer are run",
                told.kind
            ))),
        }
    }
}

/// A network that makes pictures larger.
pub struct Described {
    /// How many times as large both sides become.
    pub scale: u32,
    /// What goes in and comes out: 3, or 1 for grey.
    pub colours: usize,
}

impl Described {
    /// Of what `describe` of `network/draft-1` gives.
    pub fn of(map: &[u8]) -> Result<Self> {
        let told = told(map)?;
        let none = || {
            let text = format!(
                "it is a network of kind '{}', which makes no picture larger; an upscaler is needed: RRDBNet (ESRGAN, \
                 Real-ESRGAN, BSRGAN), compact Real-ESRGAN, SPAN, SwinIR, DAT",
                told.kind
            );
            Error::model(text)
        };
        let whole = told.entries.get("").ok_or_else(none)?;
        let ([input], [output]) = (&whole.inputs[..], &whole.outputs[..]) else { return Err(none()) };
        let ([_, taken, _, _], [_, made, high, _]) = (&input.sizes[..], &output.sizes[..]) else {
            return Err(none());
        };
        let scale =
            high.times().filter(|_| input.name == "image" && output.name == "image").ok_or_else(none)?;
        match (taken.fixed(), made.fixed()) {
            (Some(colours @ (1 | 3)), Some(same)) if colours == same => {
                Ok(Self { scale, colours: colours as usize })
            }
            (taken, made) => {
                let side =
                    |count: Option<u64>| count.map_or_else(|| "any".to_owned(), |count| count.to_string());
                let text = format!(
                    "it takes pictures of {} colours and gives {}; upscalers of 3, or of 1, are run",
                    side(taken),
                    side(made)
                );
                Err(Error::model(text))
            }
        }
    }
}

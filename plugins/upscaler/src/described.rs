//! What the host says of a file's network, as far as it matters to an upscaler or a restorer.

use latentd_plugin_api::{Error, NetworkInfo, Result};

/// A network that restores faces.
pub struct FaceRestorer {
    /// Sides of a face.
    pub side: usize,
    /// Whether it takes a weight.
    pub is_weighted: bool,
}

impl FaceRestorer {
    /// Of what the host says of its file.
    pub fn of(told: &NetworkInfo) -> Result<Self> {
        let is_weighted = told.kind == "codeformer";
        let face = told.entries.get("").and_then(|whole| whole.inputs.first());
        let side = face.and_then(|face| face.sizes.last()?.fixed());
        match side {
            Some(side) if is_weighted || told.kind == "gfpgan" => Ok(Self { side, is_weighted }),
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
    /// Of what the host says of its file.
    pub fn of(told: &NetworkInfo) -> Result<Self> {
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
            (Some(colours @ (1 | 3)), Some(same)) if colours == same => Ok(Self { scale, colours }),
            (taken, made) => {
                let side =
                    |count: Option<usize>| count.map_or_else(|| "any".to_owned(), |count| count.to_string());
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

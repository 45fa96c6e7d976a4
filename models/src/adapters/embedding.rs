//! Textual inversions: vectors that stand in the place of tokens.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use latentd_kernels::Weights;
use sha2::{Digest, Sha256};

use crate::files::Tensors;
use crate::{Error, Result};

/// Vectors of an embedding: as many as a chunk of a prompt has places.
pub const MOST_VECTORS: usize = 75;

/// Numbers of a vector: more than any text encoder's width.
pub(super) const WIDEST: usize = 1 << 14;

/// What A1111 saves the vectors under, by the token that was trained.
const PARAMETERS: &str = "string_to_param.";

/// The vectors of an embedding's file.
#[derive(Clone, PartialEq)]
pub struct Embedding {
    /// At least one, all of one length.
    vectors: Vec<Arc<[f32]>>,
    /// Those for the second text encoder, as many; of SDXL's only.
    second: Vec<Arc<[f32]>>,
    digest: [u8; 32],
}

impl fmt::Debug for Embedding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = (self.vectors.len(), self.width(), self.second.first().map(|vector| vector.len()));
        f.debug_tuple("Embedding").field(&size).finish_non_exhaustive()
    }
}

impl Embedding {
    /// Reads a file: `emb_params` as safetensors have it, A1111's `string_to_param`, SDXL's `clip_l` and `clip_g`, or one
    /// tensor of any name, as diffusers saves it. Its shape is `(vectors, width)`, or `(width)` for one vector.
    ///
    /// # Errors
    /// If the file holds anything else, more than [`MOST_VECTORS`], or a number that is not finite.
    pub fn of(file: &Tensors) -> Result<Self> {
        if ["clip_l", "clip_g"].iter().all(|name| file.shape(name).is_some()) {
            return Self::new(file.path(), read(file, "clip_l")?, read(file, "clip_g")?);
        }
        Self::new(file.path(), read(file, &only_tensor(file)?)?, vec![])
    }

    /// Of such vectors, each of `path`'s file.
    pub(super) fn new(path: &Path, vectors: Vec<Arc<[f32]>>, second: Vec<Arc<[f32]>>) -> Result<Self> {
        if !second.is_empty() && second.len() != vectors.len() {
            let reason = format!("has {} vectors in clip_l, but {} in clip_g", vectors.len(), second.len());
            return Err(Error::model(path, reason));
        }
        let mut hasher = Sha256::new();
        for part in [&vectors, &second] {
            hasher.update((part.len() as u64).to_le_bytes());
            for vector in part {
                hasher.update((vector.len() as u64).to_le_bytes());
                vector.iter().for_each(|value| hasher.update(value.to_le_bytes()));
            }
        }
        Ok(Self { vectors, second, digest: hasher.finalize().into() })
    }

    /// Its vectors, 1 to [`MOST_VECTORS`], for the model's first text encoder.
    pub fn vectors(&self) -> &[Arc<[f32]>] {
        &self.vectors
    }

    /// As many for SDXL's second text encoder; none of an embedding for other models.
    pub fn second_vectors(&self) -> &[Arc<[f32]>] {
        &self.second
    }

    /// Numbers of each of [`Self::vectors`].
    pub fn width(&self) -> usize {
        self.vectors.first().map_or(0, |vector| vector.len())
    }

    /// Equal for the same numbers, whatever file they are in.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Why it is not for a model whose only text encoder has this width, as the end of a sentence that begins with its
    /// name; `None` if it is.
    pub fn misfit(&self, width: usize) -> Option<String> {
        let own = self.width();
        if let Some(second) = self.second.first() {
            return Some(format!(
                "is for SDXL, whose text encoders are {own} and {} wide; this model has one, {width} wide",
                second.len()
            ));
        }
        let family = match own {
            768 => " (SD 1.x)",
            1024 => " (SD 2.x)",
            1280 => " (SDXL's second)",
            _ => "",
        };
        (own != width)
            .then(|| format!("is for a text encoder {own} wide{family}; this model's is {width} wide"))
    }
}

/// The one tensor that holds the vectors.
fn only_tensor(file: &Tensors) -> Result<String> {
    if file.shape("emb_params").is_some() {
        return Ok("emb_params".to_owned());
    }
    let under = if file.has_under(PARAMETERS) { PARAMETERS } else { "" };
    let mut names = file.names().filter(|name| name.starts_with(under));
    match (names.next(), names.next()) {
        (Some(name), None) => Ok(name.to_owned()),
        (None, _) => Err(Error::model(file.path(), "has no tensor; an embedding has one")),
        (Some(first), Some(second)) => Err(Error::model(
            file.path(),
            format!("has several tensors, {first} and {second} among them; an embedding has one"),
        )),
    }
}

fn read(file: &Tensors, name: &str) -> Result<Vec<Arc<[f32]>>> {
    let wrong = |reason: String| Error::model(file.path(), format!("tensor {name} {reason}"));
    let shape = file.shape(name).unwrap_or_default();
    let (count, width) = match *shape {
        [width] => (1, width),
        [count, width] => (count, width),
        _ => {
            return Err(wrong(format!("is {shape:?}; an embedding's is [vectors, width]")));
        }
    };
    check_sizes(count, width).map_err(wrong)?;
    let Some((dtype, bytes)) = file.weights(name)? else {
        return Err(wrong("is missing".to_owned()));
    };
    let values = Weights { dtype, bytes: &bytes }.to_f32();
    if values.iter().any(|value| !value.is_finite()) {
        return Err(wrong(
            "has numbers that are not finite; it is damaged, or its training failed".to_owned(),
        ));
    }
    Ok(values.chunks_exact(width).map(Arc::from).collect())
}

/// Whether so many vectors of such a width are an embedding; what is wrong if not.
pub(super) fn check_sizes(count: usize, width: usize) -> Result<(), String> {
    if count == 0 || count > MOST_VECTORS {
        return Err(format!("has {count} vectors; 1 to {MOST_VECTORS} fit into a prompt"));
    }
    if width == 0 || width > WIDEST {
        return Err(format!("has vectors of {width} numbers; 1 to {WIDEST} are possible"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::from_bytes;

    /// Name, shape and first number of each.
    type Given<'a> = &'a [(&'a str, &'a [usize], f32)];

    fn file(tensors: Given) -> Tensors {
        let (mut header, mut data) = (vec![], vec![]);
        for (name, shape, first) in tensors {
            let start = data.len();
            for index in 0..shape.iter().product::<usize>() {
                data.extend((first + index as f32).to_le_bytes());
            }
            let end = data.len();
            header.push(format!(
                r#""{name}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{start},{end}]}}"#
            ));
        }
        let header = format!("{{{}}}", header.join(","));
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
        from_bytes("x.safetensors", bytes).expect("sound")
    }

    #[test]
    fn each_form_is_read() {
        let two = vec![vec![0.0, 1.0, 2.0], vec![3.0, 4.0, 5.0]];
        let rows: &[(Given, Vec<Vec<f32>>)] = &[
            (&[("emb_params", &[2, 3], 0.0)], two.clone()),
            (&[("emb_params", &[3], 0.0)], vec![vec![0.0, 1.0, 2.0]]),
            (&[("string_to_param.*", &[2, 3], 0.0)], two.clone()),
            // The first textual inversions had their token as a tensor.
            (&[("string_to_param.*", &[2, 3], 0.0), ("string_to_token.*", &[1], 265.0)], two.clone()),
            (&[("<my.style>", &[3], 0.0)], vec![vec![0.0, 1.0, 2.0]]),
            (&[("weight", &[2, 3], 0.0)], two.clone()),
        ];
        for (tensors, expected) in rows {
            let embedding = Embedding::of(&file(tensors)).expect("read");
            let vectors: Vec<Vec<f32>> = embedding.vectors().iter().map(|vector| vector.to_vec()).collect();
            assert_eq!((&vectors, embedding.width()), (expected, 3), "{tensors:?}");
            assert!(embedding.second_vectors().is_empty());
        }
        let digest = |tensors| Embedding::of(&file(tensors)).expect("read").digest();
        let one = digest(&[("emb_params", &[2, 3], 0.0)]);
        assert_eq!(one, digest(&[("other", &[2, 3], 0.0)]), "the same numbers");
        assert_ne!(one, digest(&[("emb_params", &[3, 2], 0.0)]), "of another shape");
        assert_ne!(one, digest(&[("emb_params", &[2, 3], 1.0)]));
    }

    #[test]
    fn it_is_said_for_what_an_embedding_is() {
        let misfit = |tensors, width| Embedding::of(&file(tensors)).expect("read").misfit(width);
        assert_eq!(misfit(&[("emb_params", &[1, 768], 0.0)], 768), None);
        let rows: &[(Given, usize, &str)] = &[
            (&[("emb_params", &[1, 1024], 0.0)], 768, "1024 wide (SD 2.x); this model's is 768 wide"),
            (&[("emb_params", &[1, 768], 0.0)], 64, "768 wide (SD 1.x); this model's is 64 wide"),
            (&[("clip_l", &[1, 768], 0.0), ("clip_g", &[1, 1280], 0.0)], 768, "is for SDXL"),
        ];
        for (tensors, width, expected) in rows {
            let why = misfit(tensors, *width).expect("does not fit");
            assert!(why.contains(expected), "{why}");
        }
        let pair = file(&[("clip_l", &[2, 768], 0.0), ("clip_g", &[2, 1280], 0.0)]);
        let pair = Embedding::of(&pair).expect("read");
        let widths = |vectors: &[Arc<[f32]>]| vectors.iter().map(|vector| vector.len()).collect::<Vec<_>>();
        assert_eq!(widths(pair.vectors()), [768, 768]);
        assert_eq!(widths(pair.second_vectors()), [1280, 1280]);
    }

    #[test]
    fn what_is_no_embedding_is_refused_by_name() {
        let rows: &[(Given, &str)] = &[
            (&[("emb_params", &[76, 3], 0.0)], "tensor emb_params has 76 vectors; 1 to 75 fit"),
            (&[("emb_params", &[0, 3], 0.0)], "has 0 vectors"),
            (&[("emb_params", &[3, 0], 0.0)], "has vectors of 0 numbers"),
            (&[("emb_params", &[1, 20000], 0.0)], "has vectors of 20000 numbers"),
            (&[("emb_params", &[1, 2, 3], 0.0)], "is [1, 2, 3]"),
            (&[("emb_params", &[], 0.0)], "is []"),
            (&[("emb_params", &[1, 2], f32::NAN)], "not finite"),
            (&[("a", &[1, 2], 0.0), ("b", &[1, 2], 0.0)], "several tensors, a and b"),
            (&[("string_to_param.a", &[2], 0.0), ("string_to_param.b", &[2], 0.0)], "several tensors"),
            (&[("clip_l", &[2, 3], 0.0), ("clip_g", &[1, 3], 0.0)], "2 vectors in clip_l, but 1 in clip_g"),
            (&[], "has no tensor"),
        ];
        for (tensors, expected) in rows {
            let error = Embedding::of(&file(tensors)).expect_err("refused").to_string();
            assert!(error.starts_with("x.safetensors: ") && error.contains(expected), "{error}");
        }
        assert!(Embedding::of(&file(&[("emb_params", &[75, 3], 0.0)])).is_ok());
    }
}

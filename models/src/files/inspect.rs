//! What is this file? Told by its tensors' names and shapes, never by its folder.

use std::collections::BTreeMap;
use std::path::Path;

use super::container::ElementType;
use super::kinds::{FIRST, FileKind, kinds};
use super::layout_names::{Layout, UNET};
use super::open::open;
use super::tensors::Tensors;
use crate::Result;

/// What a look at a file's header tells; no tensor is read.
#[derive(Clone, Debug)]
pub struct FileInfo {
    /// What the file holds.
    pub kind: FileKind,
    /// What it holds beside that, such as a ControlNet within a checkpoint.
    pub beside: Vec<FileKind>,
    /// What a checkpoint is where it can be told: its family, "sd1", "sd2" or "sdxl", and what its UNet sees beside
    /// latents and text, if anything: "sd1-inpainting", "sd1-pix2pix", "sd2-depth".
    pub architecture: Option<String>,
    /// After whose manner it names networks of Stable Diffusion, if it holds any.
    pub layout: Option<Layout>,
    /// How its format is called: "safetensors", "GGUF", "folder".
    pub format: &'static str,
    /// Tensors and weights of each type, by its name.
    pub dtypes: BTreeMap<String, (usize, u64)>,
    /// Number of tensors.
    pub tensors: usize,
    /// Number of weights.
    pub parameters: u64,
    /// The type most weights are stored in, in lower case; of a quantised file the one most of its quantised weights are.
    pub dtype: String,
    /// What the file says of itself: `__metadata__`, or the texts and numbers among GGUF's key-values and a pickle's
    /// values; of a folder what its configurations say, under the same names.
    pub metadata: BTreeMap<String, String>,
}

/// Looks at the header of a weight file, or at those in a folder.
pub fn inspect(path: &Path) -> Result<FileInfo> {
    Ok(FileInfo::of(&open(path)?))
}

impl FileInfo {
    /// What the header of an open file tells.
    pub fn of(file: &Tensors) -> Self {
        let mut kinds = kinds(file).into_iter();
        Self {
            kind: kinds.next().unwrap_or(FileKind::Unknown),
            beside: kinds.collect(),
            architecture: architecture(file),
            layout: file.layout(),
            format: file.format(),
            tensors: file.names().count(),
            parameters: by_dtype(file).values().map(|(_, elements)| elements).sum(),
            dtype: main_dtype(file),
            dtypes: by_dtype(file)
                .into_iter()
                .map(|(dtype, counts)| (dtype.name().to_owned(), counts))
                .collect(),
            metadata: file.metadata().clone(),
        }
    }
}

/// Number of tensors and of elements per type.
fn by_dtype(file: &Tensors) -> BTreeMap<ElementType, (usize, u64)> {
    let mut counts = BTreeMap::<ElementType, (usize, u64)>::new();
    for name in file.names() {
        let shape = file.shape(name).unwrap_or_default();
        // Beside a size of 0 the others can be any.
        let elements = shape.iter().fold(1, |all: u64, size| all.saturating_mul(*size as u64));
        let (tensors, all) = counts.entry(file.dtype(name).unwrap_or(ElementType::Other)).or_default();
        *tensors += 1;
        *all = all.saturating_add(elements);
    }
    counts
}

/// The type by which a file is called, as in [`FileInfo::dtype`]; empty for a file without tensors. A quantised file has
/// more in f16 than one would think: all convolutions.
pub(crate) fn main_dtype(file: &Tensors) -> String {
    let counts = by_dtype(file);
    let most = counts.into_iter().max_by_key(|(dtype, (_, elements))| (dtype.is_quantised(), *elements));
    most.map(|(dtype, _)| dtype.name().to_owned()).unwrap_or_default()
}

/// The architecture of a checkpoint, as in [`FileInfo::architecture`].
pub(crate) fn architecture(file: &Tensors) -> Option<String> {
    let family = family(file)?;
    let beside = match file.shape(FIRST).and_then(|shape| shape.get(1)) {
        Some(5) => "-depth",
        Some(8) => "-pix2pix",
        Some(9) => "-inpainting",
        _ => "",
    };
    Some(format!("{family}{beside}"))
}

/// The family of a checkpoint by the text encoders it carries.
fn family(file: &Tensors) -> Option<&'static str> {
    if !file.has_under(UNET) {
        None
    } else if file.has_under("conditioner.embedders.") {
        Some("sdxl")
    } else if file.has_under("cond_stage_model.model.") {
        Some("sd2")
    } else if file.has_under("cond_stage_model.transformer.") {
        Some("sd1")
    } else {
        None
    }
}

//! What is this file? Told by its tensors' names and shapes, never by its folder.

use std::collections::BTreeMap;
use std::path::Path;

use super::container::ElementType;
use super::open::open;
use super::tensors::Tensors;
use crate::Result;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A whole model.
    Checkpoint,
    /// A VAE alone.
    Vae,
    /// A LoRA.
    Lora,
    /// A textual-inversion embedding.
    Embedding,
    /// A ControlNet.
    ControlNet,
    /// None of these.
    Unknown,
}

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
    /// Number of tensors.
    pub tensors: usize,
    /// Number of weights.
    pub parameters: u64,
    /// The type most weights are stored in, in lower case; of a quantised file the one most of its quantised weights are.
    pub dtype: String,
    /// What the file says of itself: `__metadata__`, or the texts and numbers among GGUF's key-values.
    pub metadata: BTreeMap<String, String>,
}

/// A checkpoint's first convolution: (channels, input channels, 3, 3).
const FIRST: &str = "model.diffusion_model.input_blocks.0.0.weight";

/// Looks at a weight file's header.
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
            tensors: file.names().count(),
            parameters: by_dtype(file).values().sum(),
            dtype: main_dtype(file),
            metadata: file.metadata().clone(),
        }
    }
}

/// Number of elements per type.
fn by_dtype(file: &Tensors) -> BTreeMap<ElementType, u64> {
    let mut counts = BTreeMap::<ElementType, u64>::new();
    for name in file.names() {
        let shape = file.shape(name).unwrap_or_default();
        // Beside a size of 0 the others can be any.
        let elements = shape.iter().fold(1, |all: u64, size| all.saturating_mul(*size as u64));
        *counts.entry(file.dtype(name).unwrap_or(ElementType::Other)).or_default() += elements;
    }
    counts
}

/// The type by which a file is called, as in [`FileInfo::dtype`]; empty for a file without tensors. A quantised file has
/// more in f16 than one would think: all convolutions.
pub(crate) fn main_dtype(file: &Tensors) -> String {
    let counts = by_dtype(file);
    let most = counts.into_iter().max_by_key(|(dtype, count)| (dtype.is_quantised(), *count));
    most.map(|(dtype, _)| dtype.name().to_owned()).unwrap_or_default()
}

/// All that a file holds, what it is for first.
fn kinds(file: &Tensors) -> Vec<FileKind> {
    let has = |name: &str| file.shape(name).is_some();
    let any = |test: &dyn Fn(&str) -> bool| file.names().any(test);
    let is_checkpoint = has(FIRST);
    let rows = [
        (FileKind::Checkpoint, is_checkpoint),
        (
            FileKind::Lora,
            any(&|name| name.contains("lora_up.") || name.contains("lora_B.") || name.contains("lora_A.")),
        ),
        (
            FileKind::ControlNet,
            any(&|name| name.contains("input_hint_block.") || name.contains("controlnet_cond_embedding.")),
        ),
        // A checkpoint's own is part of it.
        (
            FileKind::Vae,
            has("decoder.conv_in.weight")
                || (!is_checkpoint && has("first_stage_model.decoder.conv_in.weight")),
        ),
        (FileKind::Embedding, has("emb_params") || (has("clip_l") && has("clip_g"))),
    ];
    rows.into_iter().filter_map(|(kind, holds)| holds.then_some(kind)).collect()
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
    let any = |prefix: &str| file.names().any(|name| name.starts_with(prefix));
    if !any("model.diffusion_model.") {
        None
    } else if any("conditioner.embedders.") {
        Some("sdxl")
    } else if any("cond_stage_model.model.") {
        Some("sd2")
    } else if any("cond_stage_model.transformer.") {
        Some("sd1")
    } else {
        None
    }
}

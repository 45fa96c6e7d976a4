//! What is this file? Told by its tensors' names and shapes, never by its folder.

use std::collections::BTreeMap;
use std::path::Path;

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
    /// The type most weights are stored in, as the file names it in lower case.
    pub dtype: String,
    /// The file's own metadata (`__metadata__`).
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
fn by_dtype(file: &Tensors) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::<String, u64>::new();
    for name in file.names() {
        let elements: usize = file.shape(name).unwrap_or_default().iter().product();
        let dtype = file.dtype(name).map(|dtype| dtype.name().to_owned()).unwrap_or_default();
        *counts.entry(dtype).or_default() += elements as u64;
    }
    counts
}

/// The type most elements are stored in, in lower case; empty for a file without tensors.
pub(crate) fn main_dtype(file: &Tensors) -> String {
    by_dtype(file).into_iter().max_by_key(|(_, count)| *count).map(|(name, _)| name).unwrap_or_default()
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
        (
            FileKind::Embedding,
            // As A1111 writes them in PyTorch's format, and in safetensors for SD 1.x and SDXL.
            any(&|name| name.starts_with("string_to_param."))
                || has("emb_params")
                || (has("clip_l") && has("clip_g")),
        ),
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

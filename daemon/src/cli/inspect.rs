//! `latentd models inspect`: what a file of weights is, and why.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use latentd_models::files::{self, FileInfo, FileKind, Layout, Prediction, Tensors};
use latentd_models::model::Checkpoint;
use serde::Serialize;

use super::failure::Failure;
use super::output::{print, print_json, visible};

/// Letters of a metadata's value that are shown; JSON has all.
const SHOWN: usize = 100;

/// Flags of `models inspect`.
#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// A weight file, or a folder with model_index.json as diffusers saves it
    file: PathBuf,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Each tensor too: its name in the file, its type and its shape
    #[arg(long)]
    tensors: bool,
}

/// Everything it says.
#[derive(Debug, Serialize)]
struct Report {
    path: PathBuf,
    kind: &'static str,
    /// What it holds beside that.
    beside: Vec<&'static str>,
    /// What a checkpoint is: its family, and what its UNet sees beside latents and text.
    architecture: Option<String>,
    format: &'static str,
    layout: Option<&'static str>,
    /// "epsilon" or "v", of a checkpoint.
    prediction: Option<&'static str>,
    /// Where that stands.
    prediction_told_by: Option<&'static str>,
    /// Width and height of the pictures it was made for, of a checkpoint that can be drawn with.
    native_size: Option<(usize, usize)>,
    tensors: usize,
    parameters: u64,
    dtypes: BTreeMap<String, Count>,
    /// Whether averaged weights of the UNet are in it, which `models convert --ema` takes.
    averaged: bool,
    metadata: BTreeMap<String, String>,
    /// Whether this version draws with it, of a checkpoint.
    loads: Option<bool>,
    /// Why not.
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    list: Option<Vec<Tensor>>,
}

#[derive(Debug, Serialize)]
struct Count {
    tensors: usize,
    parameters: u64,
}

#[derive(Debug, Serialize)]
struct Tensor {
    name: String,
    dtype: &'static str,
    shape: Vec<usize>,
}

/// Reads headers, and tries what loading would check.
pub(super) fn run(args: &InspectArgs) -> Result<ExitCode, Failure> {
    let file = files::open(&args.file).map_err(Failure::new)?;
    let list = args.tensors.then(|| list(&file));
    let report = report(&args.file, file, list);
    if args.json {
        print_json(&report)?;
    } else {
        print(&text(&report))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn list(file: &Tensors) -> Vec<Tensor> {
    let tensor = |name: &str| Tensor {
        name: name.to_owned(),
        dtype: file.dtype(name).map_or("", |dtype| dtype.name()),
        shape: file.shape(name).unwrap_or_default().to_vec(),
    };
    file.names().map(tensor).collect()
}

fn report(path: &Path, file: Tensors, list: Option<Vec<Tensor>>) -> Report {
    let info = FileInfo::of(&file);
    let averaged = file.has_ema();
    let is_checkpoint = info.kind == FileKind::Checkpoint;
    let told = is_checkpoint.then(|| Prediction::told(path, &file)).and_then(Result::ok);
    let opened = is_checkpoint.then(|| Checkpoint::of_file(file));
    let (native_size, reason) = match &opened {
        Some(Ok(checkpoint)) => (Some(checkpoint.native_size), None),
        Some(Err(error)) => (None, Some(error.to_string())),
        None => (None, None),
    };
    let count = |(dtype, (tensors, parameters))| (dtype, Count { tensors, parameters });
    Report {
        path: path.to_owned(),
        kind: name(info.kind),
        beside: info.beside.into_iter().map(name).collect(),
        architecture: info.architecture,
        format: info.format,
        layout: info.layout.map(Layout::name),
        prediction: told.map(|(prediction, _)| prediction.name()),
        prediction_told_by: told.map(|(_, by)| by.text()),
        native_size,
        tensors: info.tensors,
        parameters: info.parameters,
        dtypes: info.dtypes.into_iter().map(count).collect(),
        averaged,
        metadata: info.metadata,
        loads: opened.map(|opened| opened.is_ok()),
        reason,
        list,
    }
}

fn name(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Checkpoint => "checkpoint",
        FileKind::Vae => "vae",
        FileKind::Lora => "lora",
        FileKind::Embedding => "embedding",
        FileKind::Hypernetwork => "hypernetwork",
        FileKind::ControlNet => "controlnet",
        FileKind::Upscaler => "upscaler",
        FileKind::Restorer => "restorer",
        FileKind::FaceModel => "face_model",
        FileKind::Taesd => "taesd",
        FileKind::ClipVision => "clip_vision",
        FileKind::Safety => "safety",
        FileKind::Unknown => "unknown",
    }
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{:14} {}", visible(key), visible(value));
    };
    line("file", &report.path.display().to_string());
    let beside = match report.beside.as_slice() {
        [] => String::new(),
        beside => format!(" (holds also: {})", beside.join(", ")),
    };
    line("kind", &format!("{}{beside}", report.kind));
    if let Some(architecture) = &report.architecture {
        line("architecture", &format!("{architecture}, by its text encoder and the UNet's input channels"));
    }
    line("format", report.format);
    if let Some(layout) = report.layout {
        line("layout", layout);
    }
    if let (Some(prediction), Some(by)) = (report.prediction, report.prediction_told_by) {
        line("prediction", &format!("{prediction} ({by})"));
    }
    if let Some((width, height)) = report.native_size {
        line("native size", &format!("{width}x{height}"));
    }
    line("tensors", &report.tensors.to_string());
    line("parameters", &report.parameters.to_string());
    for (dtype, Count { tensors, parameters }) in &report.dtypes {
        line(&format!("  {dtype}"), &format!("{parameters} in {tensors} tensors"));
    }
    if report.averaged {
        line("averaged", "averaged weights of the UNet (model_ema), which models convert --ema takes");
    }
    for (key, value) in &report.metadata {
        let shown: String = value.chars().take(SHOWN).collect();
        let cut = if shown.len() < value.len() { "…" } else { "" };
        line("metadata", &format!("{key}: {shown}{cut}"));
    }
    match (report.loads, &report.reason) {
        (Some(true), _) => line("loads", "yes: each tensor that the networks need is there, in its shape"),
        (_, Some(reason)) => line("loads", &format!("no: {reason}")),
        _ => (),
    }
    for Tensor { name, dtype, shape } in report.list.iter().flatten() {
        line("tensor", &format!("{name} {dtype} {shape:?}"));
    }
    text
}

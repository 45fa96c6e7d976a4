//! `latentd models convert`: a weight file or a diffusers folder as safetensors, in another layout or type.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use latentd_client::protocol::WeightType;
use latentd_models::files::{self, Layout};
use latentd_models::model::{Conversion, Conversions, WeightDtype};

use super::failure::Failure;
use super::output::{print, size};
use super::stopped::Stopped;
use crate::whole_file;

/// Flags of `models convert`.
#[derive(Debug, Args)]
pub(super) struct ConvertArgs {
    /// A weight file, or a folder with model_index.json as diffusers saves it
    input: PathBuf,
    /// Where to write: a .safetensors file, or a folder for a checkpoint in diffusers' layout
    output: PathBuf,
    /// How networks of Stable Diffusion are named [default: as they are; ldm where a folder becomes a .safetensors file]
    #[arg(long)]
    layout: Option<LayoutArg>,
    /// The type of their weights [default: as it is; 8-bit and quantised ones become f16]
    #[arg(long)]
    dtype: Option<DtypeArg>,
    /// Take the averaged weights of the UNet (model_ema) instead of the plain ones
    #[arg(long)]
    ema: bool,
    /// Replace what is there
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LayoutArg {
    /// One file, as checkpoints have it
    Ldm,
    /// A folder with configurations, which diffusers loads; a network alone is a file
    Diffusers,
}

/// A type of weights.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum DtypeArg {
    F32,
    F16,
    Bf16,
}

impl DtypeArg {
    /// As it goes over the wire.
    pub(super) fn weight_type(self) -> WeightType {
        match self {
            Self::F32 => WeightType::F32,
            Self::F16 => WeightType::F16,
            Self::Bf16 => WeightType::Bf16,
        }
    }
}

/// Converts, shows how far it is, and leaves nothing half done, also on Ctrl-C.
pub(super) async fn run(args: ConvertArgs) -> Result<ExitCode, Failure> {
    let mut stopped = Stopped::listen()?;
    let cancelled = Arc::new(AtomicBool::new(false));
    let watched = Arc::clone(&cancelled);
    let output = args.output.clone();
    let mut work = tokio::task::spawn_blocking(move || convert(&args, &watched));
    let done = tokio::select! {
        done = &mut work => done,
        () = stopped.wait() => {
            cancelled.store(true, Ordering::Release);
            work.await
        }
    };
    let bytes = done.map_err(Failure::new)??;
    print(&format!("{} {}\n", output.display(), size(bytes)))?;
    Ok(ExitCode::SUCCESS)
}

/// The bytes of the tensors that were written.
fn convert(args: &ConvertArgs, cancelled: &AtomicBool) -> Result<u64, Failure> {
    let conversion = Conversion {
        layout: args.layout.map(|layout| match layout {
            LayoutArg::Ldm => Layout::Ldm,
            LayoutArg::Diffusers => Layout::Diffusers,
        }),
        dtype: args.dtype.map(|dtype| match dtype {
            DtypeArg::F32 => WeightDtype::F32,
            DtypeArg::F16 => WeightDtype::F16,
            DtypeArg::Bf16 => WeightDtype::Bf16,
        }),
        ema: args.ema,
    };
    let file = files::open(&args.input).map_err(Failure::new)?;
    // Who names a file wants one.
    let is_file = args.output.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("safetensors"));
    let conversion = match conversion.layout {
        None if is_file && file.format() == "folder" => {
            Conversion { layout: Some(Layout::Ldm), ..conversion }
        }
        _ => conversion,
    };
    let converted = conversion.of(file).map_err(Failure::new)?;
    check_output(&args.output, converted.is_folder(), args.force)?;
    write(&converted, &args.output, args.force, cancelled).map_err(|error| {
        match error.downcast::<latentd_models::Error>() {
            Ok(latentd_models::Error::Cancelled) => Failure::cancelled(),
            Ok(error) => Failure::new(error),
            Err(error) => Failure::new(format!("cannot write {}: {error}", args.output.display())),
        }
    })?;
    Ok(converted.bytes())
}

/// Whether something may be written there. A folder that is no model is never replaced.
fn check_output(output: &Path, is_folder: bool, force: bool) -> Result<(), Failure> {
    let Ok(found) = std::fs::symlink_metadata(output) else {
        return Ok(());
    };
    let shown = output.display();
    if !force {
        return Err(Failure::usage(format!("{shown} exists; --force replaces it")));
    }
    let is_model = output.join("model_index.json").is_file();
    match (is_folder, found.is_dir()) {
        (true, true) if !is_model => {
            let text = format!("{shown} is a folder without model_index.json, which is not replaced");
            Err(Failure::usage(text))
        }
        (true, false) => Err(Failure::usage(format!("{shown} is a file, and a folder is to be written"))),
        (false, true) => Err(Failure::usage(format!("{shown} is a folder, and a file is to be written"))),
        _ => Ok(()),
    }
}

fn write(converted: &Conversions, output: &Path, force: bool, cancelled: &AtomicBool) -> io::Result<()> {
    let bar = ProgressBar::with_draw_target(Some(converted.bytes()), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("[{bar:32}] {percent}%  {eta} left") {
        bar.set_style(style.progress_chars("=> "));
    }
    let mut wrote = |bytes| {
        bar.inc(bytes);
        if cancelled.load(Ordering::Acquire) { Err(latentd_models::Error::Cancelled) } else { Ok(()) }
    };
    let written = if converted.is_folder() {
        whole_file::write_folder(output, force, &mut |folder| {
            bar.set_position(0);
            converted.write_folder(folder, output, &mut wrote).map_err(io::Error::other)
        })
    } else {
        whole_file::write_with(output, &mut |file| {
            bar.set_position(0);
            converted.write_file(file, output, &mut wrote).map_err(io::Error::other)
        })
    };
    bar.finish_and_clear();
    written
}

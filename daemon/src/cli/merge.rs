//! `latentd models merge`: checkpoints, a VAE and LoRAs in one new file.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use latentd_client::protocol::{LoraParams, MergeParams, MergeResult};

use super::convert::DtypeArg;
use super::failure::Failure;
use super::generate::lora;
use super::global::GlobalArgs;
use super::one_job::{done, submit};
use super::output::{print, say, size, visible};
use super::stopped::Stopped;
use crate::paths;

/// What to merge. What is left out has the daemon's default.
#[derive(Debug, Args)]
pub(super) struct MergeArgs {
    /// The checkpoint that the others are merged into: a name, a path inside a models folder, or a hash
    #[arg(value_name = "A")]
    a: String,
    /// The second checkpoint
    #[arg(value_name = "B")]
    b: Option<String>,
    /// The third, for add_difference
    #[arg(value_name = "C")]
    c: Option<String>,
    /// The new checkpoint: a name, for the folder of checkpoints in the first models folder, or a .safetensors file
    #[arg(short, long, value_name = "NAME|FILE")]
    output: String,
    /// weighted_sum, A·(1−M) + B·M; add_difference, A + (B−C)·M; none, A alone [default: add_difference with C, weighted_sum with B, else none]
    #[arg(long, value_name = "NAME")]
    method: Option<String>,
    /// M [default: 0.3]
    #[arg(short, long, value_name = "M", allow_negative_numbers = true)]
    multiplier: Option<f64>,
    /// Write the networks in f16
    #[arg(long)]
    half: bool,
    /// The type of the networks' weights [default: A's; of 8-bit and quantised ones f16]
    #[arg(long, conflicts_with = "half")]
    dtype: Option<DtypeArg>,
    /// Put this VAE in the place of A's
    #[arg(long, value_name = "NAME")]
    vae: Option<String>,
    /// Put a LoRA into the weights: its name, and how strong, in text encoder and UNet apart if two numbers are given; may be given several times
    #[arg(long = "lora", value_name = "NAME[:STRENGTH[:UNET]]", value_parser = lora)]
    loras: Vec<LoraParams>,
    /// Leave out tensors in whose name this is found, such as model_ema
    #[arg(long, value_name = "REGEX")]
    discard_weights: Option<String>,
    /// Replace the file if it is there
    #[arg(long)]
    overwrite: bool,
    /// A models folder for the daemon that is started if none runs; may be given several times
    #[arg(long = "models-dir", value_name = "DIR", value_parser = paths::parser())]
    models_dirs: Vec<PathBuf>,
}

impl MergeArgs {
    fn params(&self) -> Result<MergeParams, Failure> {
        let (dir, name) = target(&self.output)?;
        let method = self.method.clone().or_else(|| self.c.is_some().then(|| "add_difference".to_owned()));
        let default = MergeParams::new(named(&self.a)?, name);
        Ok(MergeParams {
            b: self.b.as_deref().map(named).transpose()?,
            c: self.c.as_deref().map(named).transpose()?,
            method,
            multiplier: self.multiplier.unwrap_or(default.multiplier),
            half: self.half,
            dtype: self.dtype.map(DtypeArg::weight_type),
            vae: self.vae.as_deref().map(named).transpose()?,
            loras: self.loras.clone(),
            discard_weights: self.discard_weights.clone(),
            dir,
            overwrite: self.overwrite,
            ..default
        })
    }
}

/// What a daemon, which is in another folder, knows a file by; a name is what it is.
fn named(text: &str) -> Result<String, Failure> {
    let path = Path::new(text);
    if !text.contains('/') || path.is_absolute() || !path.exists() {
        return Ok(text.to_owned());
    }
    absolute(path)
}

/// Where to put the new file, if that is said, and what to call it.
fn target(output: &str) -> Result<(Option<String>, String), Failure> {
    let path = Path::new(output);
    let has_ending = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("safetensors"));
    if !output.contains('/') && !has_ending {
        return Ok((None, output.to_owned()));
    }
    let name = if has_ending { path.file_stem() } else { None };
    let Some(name) = name.and_then(|name| name.to_str()) else {
        return Err(Failure::usage(format!("--output: {output} is neither a name nor a .safetensors file")));
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((Some(absolute(folder)?), name.to_owned()))
}

fn absolute(path: &Path) -> Result<String, Failure> {
    let wrong = |what: String| Failure::usage(format!("{}: {what}", path.display()));
    let path = std::path::absolute(path).map_err(|error| wrong(error.to_string()))?;
    path.to_str().map(str::to_owned).ok_or_else(|| wrong("is not UTF-8".to_owned()))
}

/// Merges, shows how far it is, and leaves nothing half done, also on Ctrl-C.
pub(super) async fn run(global: &GlobalArgs, args: MergeArgs) -> Result<ExitCode, Failure> {
    let config = global.config()?;
    let params = args.params()?;
    // From before there is a job, so that none is left behind.
    let mut stopped = Stopped::listen()?;
    let (client, job) = tokio::select! {
        submitted = submit(global, &config, &args.models_dirs, "models.merge", &params) => submitted?,
        () = stopped.wait() => return Err(Failure::cancelled()),
    };
    let merged: MergeResult = done(&client, &job, stopped).await?;
    for notice in &merged.notices {
        say(&format!("latentd: {}", visible(notice)));
    }
    print(&format!("{}  {}\n", visible(&merged.path), size(merged.bytes)))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_told_from_a_file() {
        for (output, dir, name) in [
            ("mix v2.1", None, "mix v2.1"),
            ("/m/mix.safetensors", Some("/m"), "mix"),
            ("/m/mix.v2.SafeTensors", Some("/m"), "mix.v2"),
        ] {
            let found = target(output).expect("a target");
            assert_eq!((found.0.as_deref(), found.1.as_str()), (dir, name));
        }
        let here = std::env::current_dir().expect("a folder");
        let found = target("mix.safetensors").expect("a target").0.expect("a folder");
        assert_eq!(Path::new(&found), here);
        assert!(target("a/b").is_err_and(|failure| failure.code == 2));
    }
}

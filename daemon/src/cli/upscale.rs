//! `latentd upscale`: pictures in, the same larger or with their faces restored out.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use latentd_client::protocol::{OutputParams, UpscaleParams, UpscaleResult};

use super::failure::Failure;
use super::global::GlobalArgs;
use super::info::picture;
use super::one_job::{done, submit};
use super::output::{say, visible};
use super::pictures::Target;
use super::stopped::Stopped;
use crate::paths;

/// Fields of the request as flags. What is left out has the daemon's default.
#[derive(Debug, Args)]
#[command(args_override_self = true)]
pub(super) struct UpscaleArgs {
    /// The pictures: PNG, JPEG or WebP
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The file to write: .png, .jpg or .webp; `-` for PNG on stdout; or a folder. Several pictures become NAME-1.png,
    /// NAME-2.png, … [default: NAME-upscaled.png of each]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The upscaler: Lanczos, Nearest, or one of a plugin
    #[arg(short, long, value_name = "NAME", allow_hyphen_values = true)]
    upscaler: Option<String>,
    /// How many times as large, then down to sides that 8 divides [default: 2]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    scale: Option<f64>,
    /// Instead, with --height: the columns to fill
    #[arg(short = 'W', long, value_name = "N")]
    width: Option<u32>,
    /// The rows to fill
    #[arg(short = 'H', long, value_name = "N")]
    height: Option<u32>,
    /// With --width and --height: keep what stands out of them
    #[arg(long)]
    no_crop: bool,
    /// A second upscaler, laid over the first
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    upscaler_2: Option<String>,
    /// How much of it is seen, 0 to 1 [default: 0.5]
    #[arg(long, value_name = "X", requires = "upscaler_2", allow_negative_numbers = true)]
    upscaler_2_visibility: Option<f64>,
    /// Sides of the tiles that an upscaler works on; 0: the whole at once [default: its own]
    #[arg(long, value_name = "N")]
    tile: Option<u32>,
    /// Pixels over which tiles fade into one another [default: its own]
    #[arg(long, value_name = "N")]
    overlap: Option<u32>,
    /// How much is seen of what GFPGAN makes of faces, 0 to 1 [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    gfpgan_visibility: Option<f64>,
    /// The same of CodeFormer [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    codeformer_visibility: Option<f64>,
    /// How close CodeFormer stays to the picture: 0 changes most, 1 least [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    codeformer_weight: Option<f64>,
    /// A models folder for the daemon that is started if none runs; may be given several times
    #[arg(long = "models-dir", value_name = "DIR", value_parser = paths::parser())]
    models_dirs: Vec<PathBuf>,
}

impl UpscaleArgs {
    fn params(&self, output: OutputParams) -> Result<UpscaleParams, Failure> {
        let default = UpscaleParams::default();
        // Nobody names one to see nothing of it.
        let usual = if self.upscaler_2.is_some() { 0.5 } else { default.extras_upscaler_2_visibility };
        Ok(UpscaleParams {
            images: self.files.iter().map(|file| picture(file)).collect::<Result<_, _>>()?,
            upscaler_1: self.upscaler.clone().unwrap_or(default.upscaler_1),
            upscaler_2: self.upscaler_2.clone().unwrap_or(default.upscaler_2),
            extras_upscaler_2_visibility: self.upscaler_2_visibility.unwrap_or(usual),
            scale: self.scale,
            width: self.width,
            height: self.height,
            crop: !self.no_crop,
            tile: self.tile,
            overlap: self.overlap,
            gfpgan_visibility: self.gfpgan_visibility.unwrap_or(default.gfpgan_visibility),
            codeformer_visibility: self.codeformer_visibility.unwrap_or(default.codeformer_visibility),
            codeformer_weight: self.codeformer_weight.unwrap_or(default.codeformer_weight),
            output,
            ..UpscaleParams::default()
        })
    }

    /// Where they go: all of them, or each for itself.
    fn targets(&self) -> Result<Vec<Target>, Failure> {
        match &self.output {
            Some(path) if !path.is_dir() => Ok(vec![Target::new(Some(path.clone()))?]),
            folder => {
                self.files.iter().map(|file| Target::new(Some(beside(folder.as_deref(), file)))).collect()
            }
        }
    }
}

/// Where a picture goes that no file is named for: into a folder by its name, or here by another one.
fn beside(folder: Option<&Path>, file: &Path) -> PathBuf {
    let mut name = file.file_stem().unwrap_or_default().to_owned();
    if folder.is_none() {
        name.push("-upscaled");
    }
    name.push(".png");
    folder.map_or_else(|| PathBuf::from(&name), |folder| folder.join(&name))
}

/// Upscales, shows how far it is, writes the files.
pub(super) async fn run(global: &GlobalArgs, args: UpscaleArgs) -> Result<ExitCode, Failure> {
    let config = global.config()?;
    let targets = args.targets()?;
    let format = targets.first().map(Target::asked_for).unwrap_or_default();
    let params = args.params(OutputParams { format, dir: None })?;
    // From before there is a job, so that none is left behind.
    let mut stopped = Stopped::listen()?;
    let (client, job) = tokio::select! {
        submitted = submit(global, &config, &args.models_dirs, "image.upscale", &params) => submitted?,
        () = stopped.wait() => return Err(Failure::cancelled()),
    };
    let made: UpscaleResult = done(&client, &job, stopped).await?;
    for notice in &made.notices {
        say(&format!("latentd: {}", visible(notice)));
    }
    let UpscaleResult { images, artifacts, .. } = made;
    match &targets[..] {
        [target] => target.write(images, artifacts)?,
        targets => {
            let mut artifacts = artifacts;
            for (index, (target, image)) in targets.iter().zip(images).enumerate() {
                let is_its = |of: Option<u32>| of.map_or(index == 0, |of| of as usize == index);
                let (own, rest) = artifacts.into_iter().partition(|artifact| is_its(artifact.image));
                artifacts = rest;
                let of_one = |artifact| latentd_client::protocol::Artifact { image: Some(0), ..artifact };
                target.write(vec![image], Vec::into_iter(own).map(of_one).collect())?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_after_their_pictures() {
        assert_eq!(beside(None, Path::new("a/b.c.jpg")), Path::new("b.c-upscaled.png"));
        assert_eq!(beside(Some(Path::new("out")), Path::new("a/b.webp")), Path::new("out/b.png"));
    }
}

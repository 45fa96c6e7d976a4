//! `latentd outpaint`: a picture in, the same continued beyond its sides out.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use latentd_client::protocol::{
    OutpaintMethod, OutpaintParams, OutputFormat, OutputParams, RepeatRequest, Txt2ImgParams,
};

use super::failure::Failure;
use super::generate::draw;
use super::global::GlobalArgs;
use super::info::picture;
use super::pictures::Target;
use super::stopped::Stopped;
use crate::paths;

/// Fields of the request as flags. What is left out has the daemon's default.
#[derive(Debug, Args)]
#[command(args_override_self = true)]
pub(super) struct OutpaintArgs {
    /// The picture: PNG, JPEG or WebP
    image: PathBuf,
    /// What to draw around it, in A1111's grammar
    #[arg(default_value = "", hide_default_value = true, allow_negative_numbers = true)]
    prompt: String,
    /// Pixels before its first column; a continued side comes to a multiple of 64
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    left: u32,
    /// After its last
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    right: u32,
    /// Above its first row
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    up: u32,
    /// Below its last
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    down: u32,
    /// The file to write: .png, .jpg or .webp; `-` for PNG on stdout. Several pictures become NAME-1.png, NAME-2.png, … [default: latentd-SEED.png]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// How it is done [default: mk2]
    #[arg(long, ignore_case = true)]
    method: Option<MethodArg>,
    /// How far into the picture what is drawn reaches [default: 8 with mk2, 4 with poor-mans]
    #[arg(long, value_name = "N")]
    mask_blur: Option<u32>,
    /// With poor-mans: what is there before it is drawn: 0 the colours around it, 1 black, 2 noise, 3 nothing [default: 0]
    #[arg(long, value_name = "0|1|2|3")]
    inpainting_fill: Option<u8>,
    /// With mk2: the exponent of the noise that it begins with; lower is more detail [default: 1]
    #[arg(long, value_name = "X")]
    noise_q: Option<f64>,
    /// With mk2: the share of that noise that differs between colours [default: 0.05]
    #[arg(long, value_name = "X")]
    color_variation: Option<f64>,
    /// What to steer away from
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    negative_prompt: Option<String>,
    /// How far to go from what it begins with [default: 0.75]
    #[arg(long, value_name = "X")]
    denoising_strength: Option<f64>,
    /// A checkpoint's name, path inside a models folder, or hash [default: as generate]
    #[arg(short, long, value_name = "NAME", allow_hyphen_values = true)]
    checkpoint: Option<String>,
    /// Seed of the first picture; -1 draws one [default: -1]
    #[arg(short, long, value_name = "N", allow_negative_numbers = true)]
    seed: Option<i64>,
    /// Sampler steps [default: 20]
    #[arg(long, value_name = "N")]
    steps: Option<u32>,
    /// Guidance scale [default: 7]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    cfg_scale: Option<f64>,
    /// Columns that are drawn at once, a multiple of 8 [default: the checkpoint's own, mostly 512]
    #[arg(short = 'W', long, value_name = "N")]
    width: Option<u32>,
    /// Rows that are, a multiple of 8 [default: the checkpoint's own, mostly 512]
    #[arg(short = 'H', long, value_name = "N")]
    height: Option<u32>,
    /// The sampler [default: Euler a]
    #[arg(long, value_name = "NAME")]
    sampler_name: Option<String>,
    /// The schedule of sigmas [default: Automatic]
    #[arg(long, value_name = "NAME")]
    scheduler: Option<String>,
    /// Pictures drawn one after the other [default: 1]
    #[arg(long, value_name = "N")]
    n_iter: Option<u32>,
    /// A models folder for the daemon that is started if none runs; may be given several times
    #[arg(long = "models-dir", value_name = "DIR", value_parser = paths::parser())]
    models_dirs: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum MethodArg {
    /// All sides at once, in tiles
    PoorMans,
    /// One side after the other, from noise that has the picture's spectrum
    Mk2,
}

impl OutpaintArgs {
    fn params(&self, format: OutputFormat) -> Result<OutpaintParams, Failure> {
        let default = OutpaintParams::default();
        let drawing = default.drawing;
        let drawing = Txt2ImgParams {
            prompt: self.prompt.clone().into(),
            negative_prompt: self.negative_prompt.clone().unwrap_or_default().into(),
            denoising_strength: self.denoising_strength,
            checkpoint: self.checkpoint.clone(),
            seed: self.seed.unwrap_or(drawing.seed),
            steps: self.steps.unwrap_or(drawing.steps),
            cfg_scale: self.cfg_scale.unwrap_or(drawing.cfg_scale),
            width: self.width,
            height: self.height,
            sampler_name: self.sampler_name.clone().unwrap_or(drawing.sampler_name),
            scheduler: self.scheduler.clone().unwrap_or(drawing.scheduler),
            n_iter: self.n_iter.unwrap_or(drawing.n_iter),
            output: OutputParams { format, dir: None },
            ..Txt2ImgParams::default()
        };
        Ok(OutpaintParams {
            drawing,
            image: picture(&self.image)?,
            left: self.left,
            right: self.right,
            up: self.up,
            down: self.down,
            method: self.method.map_or(default.method, |method| match method {
                MethodArg::PoorMans => OutpaintMethod::PoorMans,
                MethodArg::Mk2 => OutpaintMethod::Mk2,
            }),
            mask_blur: self.mask_blur,
            inpainting_fill: self.inpainting_fill.unwrap_or(default.inpainting_fill),
            noise_q: self.noise_q.unwrap_or(default.noise_q),
            color_variation: self.color_variation.unwrap_or(default.color_variation),
        })
    }
}

/// Draws, shows how far it is, writes the files.
pub(super) async fn run(global: &GlobalArgs, args: OutpaintArgs) -> Result<ExitCode, Failure> {
    let config = global.config()?;
    let target = Target::new(args.output.clone())?;
    let stopped = Stopped::listen()?;
    let request = RepeatRequest::Outpaint(Box::new(args.params(target.asked_for())?));
    draw(global, &config, &args.models_dirs, &request, &target, stopped).await?;
    Ok(ExitCode::SUCCESS)
}

//! `latentd generate`: text and pictures in, picture files out.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use latentd_client::protocol::{
    Emphasis, LoraParams, OnDisconnect, OutpaintParams, OutputFormat, OutputParams, PluginParams, Precision,
    RepeatRequest, Rng, Txt2ImgParams, Txt2ImgResult, VaeDecodeMethod,
};

use super::failure::Failure;
use super::global::GlobalArgs;
use super::hires::HiresArgs;
use super::info;
use super::init_pictures::{self, InitArgs};
use super::one_job::{done, submit};
use super::output::{say, visible};
use super::pictures::Target;
use super::plugins::{plugin, plugin_version};
use super::regions::RegionArgs;
use super::restoring::RestoringArgs;
use super::sampling::SamplingArgs;
use super::stopped::Stopped;
use crate::blobs;
use crate::config::Config;
use crate::paths;

/// Fields of the request as flags. What is left out has the daemon's default.
#[derive(Debug, Args)]
#[command(args_override_self = true)]
#[allow(clippy::struct_excessive_bools, reason = "they are flags")]
pub(super) struct GenerateArgs {
    /// What to draw, in A1111's grammar: emphasis, BREAK, [from:to:when], [a|b], AND, <lora:…>
    #[arg(allow_negative_numbers = true, required_unless_present = "from")]
    prompt: Option<String>,
    /// A PNG, JPEG or WebP file whose text says how it was made: draws it again, but for what the prompt and other flags say
    #[arg(long, value_name = "PICTURE")]
    from: Option<PathBuf>,
    /// The file to write: .png, .jpg or .webp; `-` for PNG on stdout, where several follow each other. In files, several pictures become NAME-1.png, NAME-2.png, … [default: latentd-SEED.png]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What to steer away from
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    negative_prompt: Option<String>,
    #[command(flatten)]
    init: InitArgs,
    #[command(flatten)]
    hires: HiresArgs,
    #[command(flatten)]
    restoring: RestoringArgs,
    #[command(flatten)]
    regions: RegionArgs,
    /// A style around both prompts, by its name; may be given several times
    #[arg(long = "style", value_name = "NAME", allow_hyphen_values = true)]
    styles: Vec<String>,
    /// What brackets in the prompts do [default: original]
    #[arg(long, ignore_case = true)]
    emphasis: Option<EmphasisArg>,
    /// How many tokens back a comma may stand for a chunk to end there [default: 20]
    #[arg(long, value_name = "N")]
    comma_padding_backtrack: Option<u32>,
    /// Read [from:to:when] as before A1111 1.6: below 1 a share of the steps, else a step
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    use_old_scheduling: Option<bool>,
    /// A checkpoint's name, path inside a models folder, or hash [default: the configured one, else the library's first, else the built-in latentd-demo]
    #[arg(short, long, value_name = "NAME", allow_hyphen_values = true)]
    checkpoint: Option<String>,
    /// A VAE's name or path; None for the checkpoint's own, Automatic for one that is named after the checkpoint [default: as the daemon is set]
    #[arg(long)]
    vae: Option<String>,
    /// What makes the picture of the latents [default: full]
    #[arg(long, ignore_case = true)]
    sd_vae_decode_method: Option<DecoderArg>,
    /// A LoRA as in <lora:…>: its name, and how strong, in text encoder and UNet apart if two numbers are given; may be given several times
    #[arg(long = "lora", value_name = "NAME[:STRENGTH[:UNET]]", value_parser = lora)]
    loras: Vec<LoraParams>,
    /// A plugin that takes part, and its parameters as a JSON object; may be given several times
    #[arg(long = "plugin", value_name = "NAME[=JSON]", value_parser = plugin)]
    plugins: Vec<(String, PluginParams)>,
    /// A plugin's version that is wanted instead of the highest; may be given several times
    #[arg(long = "plugin-version", value_name = "NAME=VERSION", value_parser = plugin_version)]
    plugin_versions: Vec<(String, String)>,
    /// Let no plugin rewrite the request
    #[arg(long)]
    no_rewrite: bool,
    /// Draw nothing if something that is asked for cannot be applied
    #[arg(long)]
    strict: bool,
    /// Seconds that the checkpoint stays in memory afterwards; 0 for none, -1 for ever [default: as the daemon is set]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    keep_alive: Option<f64>,
    /// Seed of the first picture; -1 draws one [default: -1]
    #[arg(short, long, value_name = "N", allow_negative_numbers = true)]
    seed: Option<i64>,
    /// Another seed, to whose picture --subseed-strength leads; -1 draws one [default: -1]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    subseed: Option<i64>,
    /// How far to go from the picture of the seed to that of --subseed, from 0 to 1 [default: 0]
    #[arg(long, value_name = "X")]
    subseed_strength: Option<f64>,
    /// With --seed-resize-from-h: the size at which the seed draws what shows in the middle
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    seed_resize_from_w: Option<i32>,
    /// Rows, as --seed-resize-from-w
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    seed_resize_from_h: Option<i32>,
    /// Sampler steps [default: 20]
    #[arg(long, value_name = "N")]
    steps: Option<u32>,
    /// Guidance scale [default: 7]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    cfg_scale: Option<f64>,
    /// Pixels in a row, a multiple of 8 [default: the checkpoint's own, mostly 512]
    #[arg(short = 'W', long, value_name = "N")]
    width: Option<u32>,
    /// Rows, a multiple of 8 [default: the checkpoint's own, mostly 512]
    #[arg(short = 'H', long, value_name = "N")]
    height: Option<u32>,
    /// The sampler [default: Euler a]
    #[arg(long, value_name = "NAME")]
    sampler_name: Option<String>,
    /// The schedule of sigmas [default: Automatic]
    #[arg(long, value_name = "NAME")]
    scheduler: Option<String>,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Pictures drawn at once [default: 1]
    #[arg(long, value_name = "N")]
    batch_size: Option<u32>,
    /// Batches drawn one after the other [default: 1]
    #[arg(long, value_name = "N")]
    n_iter: Option<u32>,
    /// Which hidden state of the text encoder conditions, from the end [default: 1]
    #[arg(long, value_name = "N")]
    clip_skip: Option<u32>,
    /// Pad the shorter of both prompts with empty chunks
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pad_cond_uncond: Option<bool>,
    /// Make the negative prompt as long as the prompt, by its last token or by cutting it
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pad_cond_uncond_v0: Option<bool>,
    /// A checkpoint that goes on where the own one ends
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    refiner_checkpoint: Option<String>,
    /// The share of the way after which it does [default: 0.8]
    #[arg(long, value_name = "X")]
    refiner_switch_at: Option<f64>,
    /// Make a picture that can be laid side by side with itself
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tiling: Option<bool>,
    /// The same from right to left only
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tiling_x: Option<bool>,
    /// The same from bottom to top only
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tiling_y: Option<bool>,
    /// Where noise comes from [default: nv]
    #[arg(long, ignore_case = true)]
    rng: Option<RngArg>,
    /// What to compute in [default: auto]
    #[arg(long)]
    precision: Option<PrecisionArg>,
    /// A models folder for the daemon that is started if none runs; may be given several times
    #[arg(long = "models-dir", value_name = "DIR", value_parser = paths::parser())]
    models_dirs: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum EmphasisArg {
    /// They weigh the words in them, and the mean of all is restored
    Original,
    /// They are text
    None,
    /// They are taken out, and weigh nothing
    Ignore,
    /// They weigh the words in them, whatever becomes of the mean
    NoNorm,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DecoderArg {
    /// The VAE
    Full,
    /// TAESD from the library: much quicker, less exact
    Taesd,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RngArg {
    /// What a CUDA card draws
    Nv,
    /// What torch draws on a CPU
    Cpu,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PrecisionArg {
    Auto,
    F32,
    Bf16,
    F16,
}

impl EmphasisArg {
    pub(super) fn wire(self) -> Emphasis {
        match self {
            Self::Original => Emphasis::Original,
            Self::None => Emphasis::None,
            Self::Ignore => Emphasis::Ignore,
            Self::NoNorm => Emphasis::NoNorm,
        }
    }
}

impl GenerateArgs {
    /// What the flags say, and of the rest what `default` does.
    fn params(&self, format: OutputFormat, default: Txt2ImgParams) -> Txt2ImgParams {
        let default = self.restoring.over(self.hires.over(self.sampling.over(default)));
        Txt2ImgParams {
            prompt: self.prompt.clone().map_or(default.prompt, Into::into),
            negative_prompt: self.negative_prompt.clone().map_or(default.negative_prompt, Into::into),
            regions: default.regions,
            styles: if self.styles.is_empty() { default.styles } else { self.styles.clone() },
            emphasis: self.emphasis.map_or(default.emphasis, EmphasisArg::wire),
            comma_padding_backtrack: self.comma_padding_backtrack.unwrap_or(default.comma_padding_backtrack),
            use_old_scheduling: self.use_old_scheduling.unwrap_or(default.use_old_scheduling),
            seed: self.seed.unwrap_or(default.seed),
            subseed: self.subseed.unwrap_or(default.subseed),
            subseed_strength: self.subseed_strength.unwrap_or(default.subseed_strength),
            seed_resize_from_w: self.seed_resize_from_w.unwrap_or(default.seed_resize_from_w),
            seed_resize_from_h: self.seed_resize_from_h.unwrap_or(default.seed_resize_from_h),
            steps: self.steps.unwrap_or(default.steps),
            cfg_scale: self.cfg_scale.unwrap_or(default.cfg_scale),
            denoising_strength: default.denoising_strength,
            width: self.width.or(default.width),
            height: self.height.or(default.height),
            sampler_name: self.sampler_name.clone().unwrap_or(default.sampler_name),
            scheduler: self.scheduler.clone().unwrap_or(default.scheduler),
            eta: default.eta,
            s_churn: default.s_churn,
            s_tmin: default.s_tmin,
            s_tmax: default.s_tmax,
            s_noise: default.s_noise,
            eta_noise_seed_delta: default.eta_noise_seed_delta,
            sigma_min: default.sigma_min,
            sigma_max: default.sigma_max,
            rho: default.rho,
            beta_dist_alpha: default.beta_dist_alpha,
            beta_dist_beta: default.beta_dist_beta,
            always_discard_next_to_last_sigma: default.always_discard_next_to_last_sigma,
            sgm_noise_multiplier: default.sgm_noise_multiplier,
            uni_pc_variant: default.uni_pc_variant,
            uni_pc_skip_type: default.uni_pc_skip_type,
            uni_pc_order: default.uni_pc_order,
            uni_pc_lower_order_final: default.uni_pc_lower_order_final,
            s_min_uncond: default.s_min_uncond,
            s_min_uncond_all: default.s_min_uncond_all,
            skip_early_cond: default.skip_early_cond,
            sd_noise_schedule: default.sd_noise_schedule,
            batch_size: self.batch_size.unwrap_or(default.batch_size),
            n_iter: self.n_iter.unwrap_or(default.n_iter),
            clip_skip: self.clip_skip.unwrap_or(default.clip_skip),
            pad_cond_uncond: self.pad_cond_uncond.unwrap_or(default.pad_cond_uncond),
            pad_cond_uncond_v0: self.pad_cond_uncond_v0.unwrap_or(default.pad_cond_uncond_v0),
            checkpoint: self.checkpoint.clone().or(default.checkpoint),
            vae: self.vae.clone().or(default.vae),
            sd_vae_decode_method: match self.sd_vae_decode_method {
                Some(DecoderArg::Taesd) => VaeDecodeMethod::Taesd,
                Some(DecoderArg::Full) => VaeDecodeMethod::Full,
                None => default.sd_vae_decode_method,
            },
            keep_alive: self.keep_alive,
            loras: if self.loras.is_empty() { default.loras } else { self.loras.clone() },
            plugins: if self.plugins.is_empty() {
                default.plugins
            } else {
                self.plugins.iter().cloned().collect()
            },
            plugin_versions: if self.plugin_versions.is_empty() {
                default.plugin_versions
            } else {
                self.plugin_versions.iter().cloned().collect()
            },
            rewrite: default.rewrite && !self.no_rewrite,
            strict: self.strict,
            refiner_checkpoint: self.refiner_checkpoint.clone().or(default.refiner_checkpoint),
            refiner_switch_at: self.refiner_switch_at.or(default.refiner_switch_at),
            enable_hr: default.enable_hr,
            hr_scale: default.hr_scale,
            hr_resize_x: default.hr_resize_x,
            hr_resize_y: default.hr_resize_y,
            hr_second_pass_steps: default.hr_second_pass_steps,
            hr_upscaler: default.hr_upscaler,
            hr_prompt: default.hr_prompt,
            hr_negative_prompt: default.hr_negative_prompt,
            hr_sampler_name: default.hr_sampler_name,
            hr_scheduler: default.hr_scheduler,
            hr_checkpoint_name: default.hr_checkpoint_name,
            hr_cfg: default.hr_cfg,
            save_images_before_highres_fix: default.save_images_before_highres_fix,
            restore_faces: default.restore_faces,
            face_restoration_model: default.face_restoration_model,
            code_former_weight: default.code_former_weight,
            tiling: self.tiling.unwrap_or(default.tiling),
            tiling_x: self.tiling_x.unwrap_or(default.tiling_x),
            tiling_y: self.tiling_y.unwrap_or(default.tiling_y),
            rng: self.rng.map_or(default.rng, |rng| match rng {
                RngArg::Nv => Rng::Nv,
                RngArg::Cpu => Rng::Cpu,
            }),
            precision: self.precision.map_or(default.precision, |precision| match precision {
                PrecisionArg::Auto => Precision::Auto,
                PrecisionArg::F32 => Precision::F32,
                PrecisionArg::Bf16 => Precision::Bf16,
                PrecisionArg::F16 => Precision::F16,
            }),
            output: OutputParams { format, dir: None },
            preview: None,
            on_disconnect: OnDisconnect::Keep,
        }
    }
}

/// Reads `NAME`, `NAME:STRENGTH` or `NAME:TE:UNET`.
pub(super) fn lora(text: &str) -> Result<LoraParams, String> {
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
    let split = |text: &str| -> Option<(String, f64)> {
        let (name, strength) = text.rsplit_once(':')?;
        Some((name.to_owned(), number(strength)?))
    };
    let (name, te, unet) = match split(text) {
        None => (text.to_owned(), None, None),
        Some((name, last)) => match split(&name) {
            None => (name, Some(last), None),
            Some((name, te)) => (name, Some(te), Some(last)),
        },
    };
    if name.trim().is_empty() || name.contains(':') {
        return Err("give NAME, NAME:STRENGTH or NAME:TE:UNET, such as pencil:0.8".to_owned());
    }
    Ok(LoraParams { name, te, unet, dynamic: None })
}

/// The request that a picture tells. What of its text no request can say is said here.
async fn told(
    global: &GlobalArgs,
    config: &Config,
    models_dirs: &[PathBuf],
    picture: &Path,
) -> Result<RepeatRequest, Failure> {
    let info = info::of(global, config, models_dirs, picture).await?;
    let shown = picture.display();
    info.notices.iter().for_each(|notice| say(&format!("latentd: {}", visible(notice))));
    let request = info.request.ok_or_else(|| {
        let advice = if info.texts.is_empty() {
            "give a prompt"
        } else {
            "what other programs wrote in it is shown by: latentd info --json"
        };
        Failure::new(format!("{shown} does not say how it was made; {advice}"))
    })?;
    if !info.others.is_empty() {
        let keys: Vec<&str> = info.others.keys().map(String::as_str).collect();
        let keys = keys.join(", ");
        // Which pairs a plugin made its parameters of, it alone knows.
        let readers: Vec<&str> = info.read_by.iter().map(String::as_str).collect();
        let but = if readers.is_empty() {
            String::new()
        } else {
            format!(", but for what plugins read of it ({})", readers.join(", "))
        };
        say(&format!(
            "latentd: of what {} says this is not drawn{}: {}",
            visible(&shown.to_string()),
            visible(&but),
            visible(&keys)
        ));
    }
    Ok(request)
}

/// What a picture tells of other pictures is only good while the daemon keeps them: says what can be done here then.
fn advised(failure: Failure) -> Failure {
    let again = [
        ("regions[", "give --region MASK TEXT again"),
        ("init_images[", "give --init-image FILE again"),
        ("mask", "give --mask FILE again"),
        ("image.blob", "continue the original again: latentd outpaint FILE"),
    ];
    let advice = again.into_iter().find(|(field, _)| failure.text.contains(field)).map(|(_, advice)| advice);
    let text = match advice {
        Some(advice) => failure.text.replace(blobs::SEND, advice),
        None => failure.text,
    };
    Failure { text, ..failure }
}

/// Draws, shows how far it is, writes the files.
pub(super) async fn run(global: &GlobalArgs, args: GenerateArgs) -> Result<ExitCode, Failure> {
    let config = global.config()?;
    if let Some(dir) = &args.init.init_dir {
        return draw_folder(global, &config, &args, dir).await;
    }
    let target = Target::new(args.output.clone())?;
    // From before there is a job, so that none is left behind.
    let mut stopped = Stopped::listen()?;
    let request = tokio::select! {
        request = request(global, &config, &args, target.asked_for()) => request?,
        () = stopped.wait() => return Err(Failure::cancelled()),
    };
    draw(global, &config, &args.models_dirs, &request, &target, stopped).await?;
    Ok(ExitCode::SUCCESS)
}

/// What the flags and `--from` say.
async fn request(
    global: &GlobalArgs,
    config: &Config,
    args: &GenerateArgs,
    format: OutputFormat,
) -> Result<RepeatRequest, Failure> {
    let (drawing, begun) = match &args.from {
        Some(picture) => match told(global, config, &args.models_dirs, picture).await? {
            RepeatRequest::Txt2Img(drawing) => (*drawing, None),
            RepeatRequest::Img2Img(begun) => (begun.drawing.clone(), Some(*begun)),
            RepeatRequest::Outpaint(outpaint) => return continued(args, format, *outpaint),
        },
        None => (Txt2ImgParams::default(), None),
    };
    let drawing = Txt2ImgParams { regions: args.regions.over(drawing.regions)?, ..drawing };
    args.init.over(args.params(format, drawing), begun)
}

/// The request that continues a picture, with what the flags say.
fn continued(
    args: &GenerateArgs,
    format: OutputFormat,
    told: OutpaintParams,
) -> Result<RepeatRequest, Failure> {
    if args.init.is_given() {
        return Err(Failure::usage(
            "the picture was continued beyond its sides, of which the flags from --init-image on know nothing; leave them out, or \
             continue another one with: latentd outpaint",
        ));
    }
    let regions = args.regions.over(told.drawing.regions.clone())?;
    let drawing = Txt2ImgParams { regions, ..args.params(format, told.drawing.clone()) };
    Ok(RepeatRequest::Outpaint(Box::new(OutpaintParams { drawing, ..told })))
}

/// Draws one request.
pub(super) async fn draw(
    global: &GlobalArgs,
    config: &Config,
    models_dirs: &[PathBuf],
    request: &RepeatRequest,
    target: &Target,
    mut stopped: Stopped,
) -> Result<(), Failure> {
    let submitted = async {
        match request {
            RepeatRequest::Txt2Img(params) => submit(global, config, models_dirs, "txt2img", params).await,
            RepeatRequest::Img2Img(params) => submit(global, config, models_dirs, "img2img", params).await,
            RepeatRequest::Outpaint(params) => submit(global, config, models_dirs, "outpaint", params).await,
        }
    };
    let (client, job) = tokio::select! {
        submitted = submitted => submitted.map_err(advised)?,
        () = stopped.wait() => return Err(Failure::cancelled()),
    };
    let drawn: Txt2ImgResult = done(&client, &job, stopped).await.map_err(advised)?;
    for notice in &drawn.notices {
        say(&format!("latentd: {}", visible(notice)));
    }
    target.write(drawn.images, drawn.artifacts).map_err(|failure| {
        if failure.text.is_empty() {
            return failure;
        }
        let text = format!("{}; what was drawn is kept: latentd jobs fetch {job} -o FILE", failure.text);
        Failure { text, ..failure }
    })
}

/// Draws from each picture in a folder. One that cannot be drawn from is told, and the next is.
async fn draw_folder(
    global: &GlobalArgs,
    config: &Config,
    args: &GenerateArgs,
    dir: &Path,
) -> Result<ExitCode, Failure> {
    let pictures = init_pictures::in_folder(dir)?;
    let to = args.output.clone().unwrap_or_else(|| PathBuf::from("."));
    if !to.is_dir() {
        return Err(Failure::usage(format!(
            "{} is no folder; with --init-dir, --output is the folder of the files that are written",
            to.display()
        )));
    }
    if std::fs::canonicalize(&to).ok() == std::fs::canonicalize(dir).ok() {
        return Err(Failure::usage(format!(
            "{} is the folder that is drawn from, and its pictures would be replaced; give another --output",
            to.display()
        )));
    }
    let request = request(global, config, args, OutputFormat::Png).await?;
    let mut failed = 0;
    for (place, path) in pictures.iter().enumerate() {
        let mut request = request.clone();
        if let RepeatRequest::Img2Img(begun) = &mut request {
            begun.init_images = vec![info::picture(path)?];
        }
        say(&format!(
            "latentd: {} ({} of {})",
            visible(&path.display().to_string()),
            place + 1,
            pictures.len()
        ));
        let name = path.file_stem().unwrap_or_default();
        let target = Target::new(Some(to.join(name).with_added_extension("png")))?;
        match draw(global, config, &args.models_dirs, &request, &target, Stopped::listen()?).await {
            Ok(()) => {}
            Err(failure) if failure.is_cancelled() => return Err(failure),
            Err(failure) => {
                failed += 1;
                say(&format!("latentd: {}", visible(&failure.text)));
            }
        }
    }
    if failed > 0 {
        return Err(Failure::new(format!("{failed} of {} pictures were not drawn from", pictures.len())));
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lora_is_read_as_in_a_prompt() {
        for (text, expected) in [
            ("pencil", Some(("pencil", None, None))),
            ("pencil:0.8", Some(("pencil", Some(0.8), None))),
            ("a b:-1:.5", Some(("a b", Some(-1.0), Some(0.5)))),
            ("pencil:strong", None),
            ("pencil:nan", None),
            (":1", None),
            ("", None),
            ("a:1:2:3", None),
        ] {
            let found = lora(text).ok();
            let found = found.as_ref().map(|lora| (lora.name.as_str(), lora.te, lora.unet));
            assert_eq!(found, expected, "{text}");
        }
    }
}

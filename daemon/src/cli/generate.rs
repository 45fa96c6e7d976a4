//! `latentd generate`: text in, picture files out.

use std::cell::Cell;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use latentd_client::protocol::{
    ErrorName, Event, EventKind, JobState, LoraParams, OnDisconnect, OutputFormat, OutputParams, Precision,
    Rng, Txt2ImgParams, Txt2ImgResult, VaeDecodeMethod,
};
use latentd_client::{Client, SubmitOptions};

use super::failure::Failure;
use super::global::GlobalArgs;
use super::launch;
use super::output::{say, visible};
use super::pictures::Target;
use super::stopped::Stopped;
use crate::config::Config;
use crate::jobs::id;
use crate::paths;

/// Fields of the request as flags. What is left out has the daemon's default.
#[derive(Debug, Args)]
#[command(args_override_self = true)]
pub(super) struct GenerateArgs {
    /// What to draw, with A1111's emphasis and BREAK
    #[arg(allow_negative_numbers = true)]
    prompt: String,
    /// The file to write: .png, .jpg or .webp; `-` for PNG on stdout, where several follow each other. In files, several pictures become NAME-1.png, NAME-2.png, … [default: latentd-SEED.png]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What to steer away from
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    negative_prompt: Option<String>,
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
    /// Draw nothing if something that is asked for cannot be applied
    #[arg(long)]
    strict: bool,
    /// Seconds that the checkpoint stays in memory afterwards; 0 for none, -1 for ever [default: as the daemon is set]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    keep_alive: Option<f64>,
    /// Seed of the first picture; -1 draws one [default: -1]
    #[arg(short, long, value_name = "N", allow_negative_numbers = true)]
    seed: Option<i64>,
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
    #[arg(long)]
    pad_cond_uncond: bool,
    /// Where noise comes from [default: nv]
    #[arg(long)]
    rng: Option<RngArg>,
    /// What to compute in [default: auto]
    #[arg(long)]
    precision: Option<PrecisionArg>,
    /// A models folder for the daemon that is started if none runs; may be given several times
    #[arg(long = "models-dir", value_name = "DIR", value_parser = paths::parser())]
    models_dirs: Vec<PathBuf>,
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

impl GenerateArgs {
    fn params(&self, format: OutputFormat) -> Txt2ImgParams {
        let default = Txt2ImgParams::default();
        Txt2ImgParams {
            prompt: self.prompt.clone(),
            negative_prompt: self.negative_prompt.clone().unwrap_or(default.negative_prompt),
            seed: self.seed.unwrap_or(default.seed),
            steps: self.steps.unwrap_or(default.steps),
            cfg_scale: self.cfg_scale.unwrap_or(default.cfg_scale),
            width: self.width,
            height: self.height,
            sampler_name: self.sampler_name.clone().unwrap_or(default.sampler_name),
            scheduler: self.scheduler.clone().unwrap_or(default.scheduler),
            batch_size: self.batch_size.unwrap_or(default.batch_size),
            n_iter: self.n_iter.unwrap_or(default.n_iter),
            clip_skip: self.clip_skip.unwrap_or(default.clip_skip),
            pad_cond_uncond: self.pad_cond_uncond,
            checkpoint: self.checkpoint.clone(),
            vae: self.vae.clone(),
            sd_vae_decode_method: match self.sd_vae_decode_method {
                Some(DecoderArg::Taesd) => VaeDecodeMethod::Taesd,
                Some(DecoderArg::Full) | None => VaeDecodeMethod::Full,
            },
            keep_alive: self.keep_alive,
            loras: self.loras.clone(),
            strict: self.strict,
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
fn lora(text: &str) -> Result<LoraParams, String> {
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

/// Draws, shows how far it is, writes the files.
pub(super) async fn run(global: &GlobalArgs, args: GenerateArgs) -> Result<ExitCode, Failure> {
    let config = global.config()?;
    let target = Target::new(args.output.clone())?;
    let params = args.params(target.asked_for());
    // From before there is a job, so that none is left behind.
    let mut stopped = Stopped::listen()?;
    let (client, job) = tokio::select! {
        submitted = submit(global, &config, &args.models_dirs, &params) => submitted?,
        () = stopped.wait() => return Err(Failure { text: "cancelled".into(), code: 130 }),
    };
    let drawn = draw(&client, &job, stopped).await?;
    for notice in &drawn.notices {
        say(&format!("latentd: {}", visible(notice)));
    }
    target.write(drawn.images).map_err(|failure| {
        if failure.text.is_empty() {
            return failure;
        }
        let text = format!("{}; what was drawn is kept: latentd jobs fetch {job} -o FILE", failure.text);
        Failure { text, ..failure }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Submits to a daemon, which is started if none runs.
async fn submit(
    global: &GlobalArgs,
    config: &Config,
    models_dirs: &[PathBuf],
    params: &Txt2ImgParams,
) -> Result<(Client, String), Failure> {
    let id = id::new().map_err(Failure::new)?;
    let attempts = Cell::new(0u32);
    launch::ask(global, config, models_dirs, async |client: &Client| {
        let attempt = attempts.replace(attempts.get() + 1);
        let id_of = |attempt: u32| if attempt == 0 { id.clone() } else { format!("{id}-{attempt}") };
        if let Some(before) = attempt.checked_sub(1).map(id_of) {
            // Its answer was lost. What became of it is known by its id, and two are not drawn.
            match client.cancel(&before).await {
                Ok(job) if job.state == JobState::Finished => return Ok(before),
                Ok(_) => (),
                Err(error) if error.wire().is_some_and(|error| error.name == ErrorName::NotFound) => (),
                Err(error) => return Err(error),
            }
        }
        let id = id_of(attempt);
        let options = SubmitOptions { id: Some(&id), on_disconnect: OnDisconnect::Cancel };
        client.submit_with("txt2img", params, options).await
    })
    .await
}

/// Follows, and cancels on Ctrl-C.
async fn draw(client: &Client, job: &str, mut stopped: Stopped) -> Result<Txt2ImgResult, Failure> {
    let mut meter = Meter::new();
    let outcome = tokio::select! {
        drawn = follow(client, job, &mut meter) => Some(drawn),
        () = stopped.wait() => None,
    };
    meter.end();
    if let Some(drawn) = outcome {
        return drawn;
    }
    tokio::select! {
        cancelled = client.cancel(job) => drop(cancelled?),
        // Again: a daemon that does not answer holds nobody up.
        () = stopped.wait() => (),
    }
    Err(Failure { text: format!("cancelled (job {job})"), code: 130 })
}

async fn follow(client: &Client, job: &str, meter: &mut Meter) -> Result<Txt2ImgResult, Failure> {
    let mut events = client.subscribe(job, 0).await?;
    while let Some(event) = events.next().await {
        meter.show(&event);
    }
    Ok(client.wait(job).await?)
}

/// Progress on stderr: a bar on a terminal, else a line now and then.
struct Meter {
    bar: ProgressBar,
    terminal: bool,
    shown_tenths: u32,
}

impl Meter {
    fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{msg:14} [{bar:32}] {pos}/{len}  {prefix}") {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar, terminal, shown_tenths: 0 }
    }

    fn show(&mut self, event: &Event) {
        match &event.kind {
            EventKind::Queued => self.bar.set_message("waiting"),
            EventKind::Started => {
                self.bar.set_message("started");
                // What was told before was of something else.
                self.shown_tenths = 0;
            }
            EventKind::Progress { stage, step, steps, eta_s } => {
                self.bar.set_message(visible(stage.as_deref().unwrap_or_default()).into_owned());
                self.bar.set_length(u64::from(*steps));
                self.bar.set_position(u64::from(*step));
                let left = eta_s.map(|eta| format!("{eta:.0} s left")).unwrap_or_default();
                self.bar.set_prefix(left.clone());
                let tenths = step.saturating_mul(10) / (*steps).max(1);
                if !self.terminal && tenths > self.shown_tenths {
                    self.shown_tenths = tenths;
                    let what = if stage.as_deref() == Some("hashing") { "hashing" } else { "step" };
                    say(&format!("{what} {step}/{steps}  {left}"));
                }
            }
            EventKind::Preview { .. }
            | EventKind::Finished
            | EventKind::Failed { .. }
            | EventKind::Cancelled => (),
        }
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
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

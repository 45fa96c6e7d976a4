//! `latentd generate`: text in, picture files out.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use latentd_client::Client;
use latentd_client::protocol::{
    Event, EventKind, ImageOut, OutputFormat, OutputParams, Precision, Rng, Txt2ImgParams, Txt2ImgResult,
};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::failure::Failure;
use super::global::GlobalArgs;
use super::launch::connect_or_start;
use super::output::{print, say, visible, write_out};
use crate::paths;
use crate::whole_file;

/// Fields of the request as flags. What is left out has the daemon's default.
#[derive(Debug, Args)]
#[command(args_override_self = true)]
pub(super) struct GenerateArgs {
    /// What to draw, with A1111's emphasis and BREAK
    prompt: String,
    /// The file to write; `-` for stdout, where several follow each other. In files, several pictures become NAME-1.png, NAME-2.png, … [default: latentd-SEED.png]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What to steer away from
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    negative_prompt: Option<String>,
    /// A checkpoint's name, path inside a models folder, or hash [default: the configured one, else the library's first, else the built-in latentd-demo]
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
    fn params(&self) -> Txt2ImgParams {
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
            output: OutputParams { format: OutputFormat::Png, dir: None },
            preview: None,
        }
    }
}

/// Draws, shows how far it is, writes the files.
pub(super) async fn run(global: &GlobalArgs, args: GenerateArgs) -> Result<ExitCode, Failure> {
    let config = global.config()?;
    check_target(args.output.as_deref())?;
    let client = connect_or_start(global, &config, &args.models_dirs).await?;
    let drawn = draw(&client, &args.params()).await?;
    for notice in &drawn.notices {
        say(&format!("latentd: {}", visible(notice)));
    }
    let images = drawn.images.len();
    for (index, image) in drawn.images.into_iter().enumerate() {
        write_image(args.output.as_deref(), image, index, images)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Finds out before anything is drawn that the picture could not be written.
fn check_target(output: Option<&Path>) -> Result<(), Failure> {
    let output = output.unwrap_or(Path::new("picture"));
    let refuse = |error: io::Error| Err(Failure::new(format!("cannot write {}: {error}", output.display())));
    if output == Path::new("-") {
        return Ok(());
    }
    match std::fs::metadata(output) {
        Ok(found) if found.is_dir() => refuse(io::ErrorKind::IsADirectory.into()),
        // A pipe or a device: what it takes is seen when it is written to.
        Ok(found) if !found.is_file() => Ok(()),
        _ => whole_file::check_folder(output).or_else(refuse),
    }
}

/// Submits, follows, and cancels on Ctrl-C.
async fn draw(client: &Client, params: &Txt2ImgParams) -> Result<Txt2ImgResult, Failure> {
    // From before there is a job, so that none is left behind.
    let mut stopped = Stopped::listen()?;
    let job = client.submit("txt2img", params, None).await?;
    let mut meter = Meter::new();
    let outcome = tokio::select! {
        drawn = follow(client, &job, &mut meter) => Some(drawn),
        () = stopped.wait() => None,
    };
    meter.end();
    if let Some(drawn) = outcome {
        return drawn;
    }
    tokio::select! {
        cancelled = client.cancel(&job) => drop(cancelled?),
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

/// Ctrl-C, or a polite kill.
struct Stopped {
    interrupt: Signal,
    terminate: Signal,
}

impl Stopped {
    fn listen() -> Result<Self, Failure> {
        let handle =
            |kind| signal(kind).map_err(|error| Failure::new(format!("cannot handle signals: {error}")));
        Ok(Self { interrupt: handle(SignalKind::interrupt())?, terminate: handle(SignalKind::terminate())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => (),
            _ = self.terminate.recv() => (),
        }
    }
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
            EventKind::Started => self.bar.set_message("started"),
            EventKind::Progress { stage, step, steps, eta_s } => {
                self.bar.set_message(visible(stage.as_deref().unwrap_or_default()).into_owned());
                self.bar.set_length(u64::from(*steps));
                self.bar.set_position(u64::from(*step));
                let left = eta_s.map(|eta| format!("{eta:.0} s left")).unwrap_or_default();
                self.bar.set_prefix(left.clone());
                let tenths = step.saturating_mul(10) / (*steps).max(1);
                if !self.terminal && tenths > self.shown_tenths {
                    self.shown_tenths = tenths;
                    say(&format!("step {step}/{steps}  {left}"));
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

fn write_image(output: Option<&Path>, image: ImageOut, index: usize, images: usize) -> Result<(), Failure> {
    let png = image.png.ok_or_else(|| Failure::new("the daemon sent a picture without PNG bytes"))?.0;
    let path = match output {
        Some(path) if path == Path::new("-") => {
            return write_out(&png).map_err(|error| Failure::new(format!("cannot write to stdout: {error}")));
        }
        Some(path) if images == 1 => path.to_owned(),
        Some(path) => numbered(path, index + 1),
        None => PathBuf::from(format!("latentd-{}.png", image.seed.unwrap_or_default())),
    };
    whole_file::write_to_target(&path, &png)
        .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))?;
    print(&format!("{}\n", path.display()))
}

/// `out.png` becomes `out-2.png`.
fn numbered(path: &Path, number: usize) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map_or_else(|| "png".into(), |extension| extension.to_string_lossy());
    path.with_file_name(format!("{stem}-{number}.{extension}"))
}

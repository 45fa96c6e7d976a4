//! `latentd bench`: how fast and how large the stages of a picture are here.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use latentd_models::Tensor;
use latentd_models::model::{ComponentKind, Model, PictureSize};
use latentd_models::nn::Precision;
use latentd_models::nn::Run;
use latentd_models::nn::backend::cpu::cpu;
use latentd_models::pipeline::{LatentDecoder, NoStages, NoWatch, Txt2Img, txt2img};
use latentd_models::prompt::Reading;
use latentd_models::sampling::{NoiseGenerator, NoiseSource, Sampler, Schedule};
use serde::Serialize;

use super::failure::Failure;
use super::global::GlobalArgs;
use super::output;
use crate::config::Config;
use crate::error::Result;
use crate::library::{Library, Patient, Pinned};
use crate::machine;
use crate::paths;
use crate::threads;

/// Measures the stages of a picture: one UNet step under guidance (batch 2), VAE decode and encode, the text
/// encoder over two prompts, loading, and a whole picture. Medians over the runs, after one run that is not counted.
#[derive(Debug, clap::Args)]
pub(super) struct BenchArgs {
    /// A checkpoint: a name in the library, or a file [default: as for a request that names none]
    #[arg(long, value_name = "NAME", conflicts_with = "synthetic", allow_hyphen_values = true)]
    checkpoint: Option<String>,
    /// Random weights in the size of a real model; `load_s` is then the time to make and pack them
    #[arg(long, value_name = "MODEL")]
    synthetic: Option<Synthetic>,
    /// A folder with models in A1111's layout; may be given several times
    #[arg(long = "models-dir", value_name = "DIR", value_parser = paths::parser())]
    models_dirs: Vec<PathBuf>,
    /// Pixels in a row [default: the checkpoint's own, mostly 512]
    #[arg(long)]
    width: Option<usize>,
    /// Rows [default: the checkpoint's own, mostly 512]
    #[arg(long)]
    height: Option<usize>,
    /// Runs of each stage that count.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,
    /// Steps of the whole picture (Euler a), drawn once; 0 leaves it out.
    #[arg(long, default_value_t = 20)]
    steps: usize,
    /// Threads that compute, at most four for a core; 0 for one per core
    #[arg(long, value_name = "N", value_parser = threads::parse)]
    threads: Option<u32>,
    /// What to compute in.
    #[arg(long, default_value = "auto", value_parser = ["auto", "f32", "bf16"])]
    precision: String,
    /// Prints one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// Models that can be made up.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Synthetic {
    /// Stable Diffusion 1.5.
    Sd15,
}

/// The report. Times are seconds.
#[derive(Serialize)]
struct Report {
    /// One guided step: the UNet over 2 latents.
    unet_step_s: f64,
    /// One image from latents.
    vae_decode_s: f64,
    /// One image to latents.
    vae_encode_s: f64,
    /// The text encoder over 2 × 77 tokens.
    clip_s: f64,
    /// From the file to packed weights.
    load_s: f64,
    /// A whole picture; absent without steps.
    txt2img_s: Option<f64>,
    /// Steps of that picture.
    txt2img_steps: usize,
    /// Most memory this process had at any time.
    peak_rss_bytes: u64,
    /// What it was expected to have: what it had before, weights, and what the largest network computes.
    predicted_peak_bytes: u64,
    /// Packed weights.
    weight_bytes: u64,
    /// The largest tensor between two layers: the VAE decoder's at full size.
    largest_activation_bytes: u64,
    /// `peak_rss_bytes` over the sum of both.
    peak_ratio: f64,
    threads: usize,
    precision: &'static str,
    kernels: &'static str,
    width: usize,
    height: usize,
    runs: u64,
}

/// Runs the benchmark and prints its report.
pub(super) fn run(global: &GlobalArgs, args: &BenchArgs) -> Result<ExitCode, Failure> {
    let is_wrong = |side: &usize| *side == 0 || !side.is_multiple_of(8);
    if let Some(side) = [args.width, args.height].into_iter().flatten().find(is_wrong) {
        return Err(Failure::usage(format!("width and height must be multiples of 8, {side} is none")));
    }
    let weights = match args.synthetic {
        Some(Synthetic::Sd15) => Weights::Random,
        None => weights(global.config()?, args)?,
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(args.threads.unwrap_or_default() as usize).build();
    let pool = pool.map_err(|error| Failure::new(format!("cannot start threads: {error}")))?;
    let report = pool.install(|| measure(args, &weights)).map_err(Failure::new)?;
    if args.json {
        output::print_json_line(&report)?;
    } else {
        output::print(&table(&report))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Where the weights come from.
enum Weights {
    Random,
    File(PathBuf),
    Library(Arc<Pinned>),
}

/// The file to measure: as named, if it is one, else from the library.
fn weights(config: Config, args: &BenchArgs) -> Result<Weights, Failure> {
    if let Some(file) = args.checkpoint.as_ref().map(PathBuf::from).filter(|file| file.is_file()) {
        return Ok(Weights::File(file));
    }
    let folders = if args.models_dirs.is_empty() { config.models_dirs } else { args.models_dirs.clone() };
    let library = Library::open(folders, &config.state_dir, |_| ());
    library.rescan();
    let pinned = library.pin(args.checkpoint.as_deref(), &config.default_checkpoint, &Patient);
    pinned.map(Weights::Library).map_err(Failure::new)
}

fn measure(args: &BenchArgs, weights: &Weights) -> Result<Report> {
    let precision = Precision::from_name(&args.precision).unwrap_or_else(Precision::best);
    let before_bytes = machine::resident_memory().unwrap_or_default();
    let start = Instant::now();
    let model = match weights {
        Weights::Random => Model::synthetic_sd15(precision)?,
        Weights::File(file) => Model::open(file, precision)?,
        Weights::Library(pinned) => Model::load(&*pinned.checkpoint()?, &cpu(), precision)?,
    };
    Ok(measure_model(args, &model, start.elapsed().as_secs_f64(), before_bytes)?)
}

fn measure_model(
    args: &BenchArgs,
    model: &Model,
    load_s: f64,
    before_bytes: u64,
) -> latentd_models::Result<Report> {
    let precision = model.precision();
    let native = model.native_size();
    let (width, height) = (args.width.unwrap_or(native.0), args.height.unwrap_or(native.1));
    let (rows, columns) = (height / 8, width / 8);
    let normal = |dims: &[usize]| {
        Tensor::new(NoiseGenerator::new(NoiseSource::Nv, 1).normal(dims.iter().product()), dims)
    };
    let channels = model.unet().config().in_channels;
    let ids = vec![vec![49407u32; 77]; 2];
    let clip_s = median(args.runs, || model.clip().encode(&ids, &[], 1, &Run::WHOLE).map(drop))?;
    let x = normal(&[2, channels, rows, columns])?;
    let context = normal(&[2, 77, model.clip().config().width])?;
    let unet_step_s =
        median(args.runs, || model.unet().forward(&x, &[500.0, 500.0], &context, None).map(drop))?;
    let latents = normal(&[1, channels, rows, columns])?;
    let vae_decode_s = median(args.runs, || model.vae().decode(&latents, &Run::WHOLE).map(drop))?;
    let image = normal(&[1, 3, height, width])?;
    let vae_encode_s = median(args.runs, || model.vae().encode(&image, &Run::WHOLE).map(drop))?;
    let txt2img_s = (args.steps > 0).then(|| draw(model, args.steps, (width, height))).transpose()?;
    let weight_bytes = model.summary().weight_bytes;
    let widths = &model.vae().config().widths;
    let widest = widths.iter().take(2).max().copied().unwrap_or_default();
    let largest_activation_bytes = (width * height * widest * precision.size()) as u64;
    let peak_rss_bytes = machine::peak_memory().unwrap_or_default();
    let size = PictureSize {
        width,
        height,
        images: 1,
        rows: 2,
        samples: 2,
        tokens: [77; 2],
        more_contexts: 0,
        held_tokens: 154,
        threads: rayon::current_num_threads(),
    };
    let activations = ComponentKind::ALL.map(|kind| model.estimate().activation_bytes(kind, &size));
    let activations = activations.into_iter().collect::<latentd_models::Result<Vec<_>>>()?;
    let predicted_peak_bytes =
        before_bytes + weight_bytes + activations.into_iter().max().unwrap_or_default();
    Ok(Report {
        unet_step_s,
        vae_decode_s,
        vae_encode_s,
        clip_s,
        load_s,
        txt2img_s,
        txt2img_steps: args.steps,
        peak_rss_bytes,
        predicted_peak_bytes,
        weight_bytes,
        largest_activation_bytes,
        peak_ratio: peak_rss_bytes as f64 / (weight_bytes + largest_activation_bytes) as f64,
        threads: rayon::current_num_threads(),
        precision: precision.name(),
        kernels: latentd_models::nn::kernels(),
        width,
        height,
        runs: args.runs,
    })
}

/// Seconds of one run: the median of `runs`, after one that warms up.
fn median(runs: u64, mut run: impl FnMut() -> latentd_models::Result<()>) -> latentd_models::Result<f64> {
    run()?;
    let mut times = vec![];
    for _ in 0..runs {
        let start = Instant::now();
        run()?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times.get(times.len() / 2).copied().unwrap_or_default())
}

fn draw(model: &Model, steps: usize, (width, height): (usize, usize)) -> latentd_models::Result<f64> {
    let unknown = || latentd_models::Error::Request("no such sampler".to_owned());
    let request = Txt2Img {
        prompt: "a lighthouse on a cliff at dusk, oil painting".into(),
        negative_prompt: "blurry".into(),
        reading: Reading::default(),
        embeddings: Arc::default(),
        seed: 1,
        steps,
        cfg_scale: 7.0,
        width,
        height,
        sampler: Sampler::from_name("Euler a").ok_or_else(unknown)?,
        schedule: Schedule::Automatic,
        batch_size: 1,
        n_iter: 1,
        clip_skip: 1,
        rng: NoiseSource::Nv,
        pad_cond_uncond: false,
        pad_cond_uncond_v0: false,
        decoder: LatentDecoder::Vae,
        ..Txt2Img::default()
    };
    let start = Instant::now();
    let drawn = txt2img(&model.facts(), &mut &*model, &request, &mut NoWatch, &mut NoStages);
    match drawn {
        // Made-up weights need not give a sound picture; its time is what counts.
        Ok(_) | Err(latentd_models::Error::NotFinite(_)) => Ok(start.elapsed().as_secs_f64()),
        Err(error) => Err(error),
    }
}

fn table(report: &Report) -> String {
    let mut text = format!(
        "{}×{}, {}, {} kernels, {} threads, median of {}\n",
        report.width, report.height, report.precision, report.kernels, report.threads, report.runs
    );
    let rows = [
        ("UNet step (batch 2)", Some(report.unet_step_s)),
        ("VAE decode", Some(report.vae_decode_s)),
        ("VAE encode", Some(report.vae_encode_s)),
        ("text encoder (2×77)", Some(report.clip_s)),
        ("load", Some(report.load_s)),
        ("whole picture", report.txt2img_s),
    ];
    for (name, seconds) in rows.into_iter().filter_map(|(name, seconds)| Some((name, seconds?))) {
        // Writing to a string does not fail.
        writeln!(text, "{name:<22}{seconds:>10.3} s").ok();
    }
    let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
    let (peak, weights) = (gib(report.peak_rss_bytes), gib(report.weight_bytes));
    let (ratio, activation) = (report.peak_ratio, gib(report.largest_activation_bytes));
    let predicted = gib(report.predicted_peak_bytes);
    writeln!(
        text,
        "{:<22}{peak:>10.2} GiB ({predicted:.2} expected), {ratio:.2} × (weights {weights:.2} + largest activation \
         {activation:.2})",
        "peak memory"
    )
    .ok();
    text
}

//! The flags of `serve`, and what the parts of the daemon are given of the settings.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tracing_subscriber::EnvFilter;

use crate::blobs::BlobLimits;
use crate::config::{Config, LogFormat};
use crate::jobs::JobLimits;
use crate::paths;
use crate::tasks::Drawing;
use crate::threads;

/// Flags of `serve`; each but the log's file is a setting of the configuration file too.
#[derive(Clone, Debug, Args)]
pub(super) struct ServeArgs {
    /// A folder with models in A1111's layout, or A1111's own; may be given several times
    #[arg(long = "models-dir", value_name = "DIR", value_parser = paths::parser())]
    models_dirs: Vec<PathBuf>,
    /// A folder with plugins, before the default one; may be given several times
    #[arg(long = "plugins-dir", value_name = "DIR", value_parser = paths::parser())]
    plugins_dirs: Vec<PathBuf>,
    /// One more folder of checkpoints; may be given several times
    #[arg(long = "ckpt-dir", value_name = "DIR", value_parser = paths::parser())]
    ckpt_dirs: Vec<PathBuf>,
    /// One more folder of VAEs; may be given several times
    #[arg(long = "vae-dir", value_name = "DIR", value_parser = paths::parser())]
    vae_dirs: Vec<PathBuf>,
    /// One more folder of LoRAs and their kin; may be given several times
    #[arg(long = "lora-dir", value_name = "DIR", value_parser = paths::parser(), visible_aliases = ["lyco-dir"])]
    lora_dirs: Vec<PathBuf>,
    /// One more folder of textual-inversion embeddings; may be given several times
    #[arg(long = "embeddings-dir", value_name = "DIR", value_parser = paths::parser())]
    embeddings_dirs: Vec<PathBuf>,
    /// One more folder of hypernetworks; may be given several times
    #[arg(long = "hypernetwork-dir", value_name = "DIR", value_parser = paths::parser())]
    hypernetwork_dirs: Vec<PathBuf>,
    /// One more folder of ControlNets; may be given several times
    #[arg(long = "controlnet-dir", value_name = "DIR", value_parser = paths::parser())]
    controlnet_dirs: Vec<PathBuf>,
    /// One more folder of upscalers, whatever network they are; may be given several times
    #[arg(long = "esrgan-models-path", value_name = "DIR", value_parser = paths::parser(), visible_aliases = ["realesrgan-models-path", "bsrgan-models-path", "scunet-models-path", "swinir-models-path", "dat-models-path", "ldsr-models-path"])]
    esrgan_models_paths: Vec<PathBuf>,
    /// One more folder of GFPGAN networks, which restore faces; may be given several times
    #[arg(long = "gfpgan-models-path", value_name = "DIR", value_parser = paths::parser(), visible_aliases = ["gfpgan-dir"])]
    gfpgan_models_paths: Vec<PathBuf>,
    /// One more folder of CodeFormer networks, which restore faces; may be given several times
    #[arg(long = "codeformer-models-path", value_name = "DIR", value_parser = paths::parser())]
    codeformer_models_paths: Vec<PathBuf>,
    /// Whether the hashes of all files are computed while nothing else is to be done
    #[arg(long, value_name = "BOOL")]
    hash_in_background: Option<bool>,
    /// The checkpoint used when a request names none [default: the library's first, else the built-in latentd-demo]
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    default_checkpoint: Option<String>,
    /// The VAE of requests that name none: Automatic, None, or a name
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    default_vae: Option<String>,
    /// Seconds that a checkpoint stays in memory after its last job; -1 until another needs the room
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-1..=31_536_000))]
    keep_alive_s: Option<i64>,
    /// A checkpoint that is brought into memory at the start; may be given several times
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    preload: Vec<String>,
    /// Threads that compute, at most four for a core; 0 for one per core
    #[arg(long, value_name = "N", value_parser = threads::parse)]
    threads: Option<u32>,
    /// Bytes that models and pictures may take together; 0 for three quarters of the machine's memory
    #[arg(long, value_name = "BYTES")]
    memory_bytes: Option<u64>,
    /// Jobs that may wait
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    queue: Option<u32>,
    /// End after this many seconds without connections and jobs; 0 for never
    #[arg(long, value_name = "SECONDS")]
    idle_exit_s: Option<u64>,
    /// What is logged: error, warn, info, debug, trace, or a tracing filter
    #[arg(long, value_name = "FILTER")]
    log_level: Option<String>,
    /// How it is logged
    #[arg(long)]
    log_format: Option<LogFormat>,
    /// Log to this file instead of stderr; at 4 MiB it becomes FILE.1, and a new one begins
    #[arg(long, value_name = "FILE", value_parser = paths::parser())]
    pub log_file: Option<PathBuf>,
}

impl ServeArgs {
    /// The configuration with these flags over it.
    pub(super) fn over(self, mut config: Config) -> Config {
        fn set<T>(setting: &mut T, flag: Option<T>) {
            if let Some(flag) = flag {
                *setting = flag;
            }
        }
        let folders = |folders: Vec<PathBuf>| (!folders.is_empty()).then_some(folders);
        set(&mut config.models_dirs, folders(self.models_dirs));
        set(&mut config.plugins_dirs, folders(self.plugins_dirs));
        set(&mut config.ckpt_dirs, folders(self.ckpt_dirs));
        set(&mut config.vae_dirs, folders(self.vae_dirs));
        set(&mut config.lora_dirs, folders(self.lora_dirs));
        set(&mut config.embeddings_dirs, folders(self.embeddings_dirs));
        set(&mut config.hypernetwork_dirs, folders(self.hypernetwork_dirs));
        set(&mut config.controlnet_dirs, folders(self.controlnet_dirs));
        set(&mut config.esrgan_models_paths, folders(self.esrgan_models_paths));
        set(&mut config.gfpgan_models_paths, folders(self.gfpgan_models_paths));
        set(&mut config.codeformer_models_paths, folders(self.codeformer_models_paths));
        set(&mut config.hash_in_background, self.hash_in_background);
        set(&mut config.default_checkpoint, self.default_checkpoint);
        set(&mut config.default_vae, self.default_vae);
        set(&mut config.keep_alive_s, self.keep_alive_s);
        set(&mut config.preload, (!self.preload.is_empty()).then_some(self.preload));
        set(&mut config.threads, self.threads);
        set(&mut config.memory_bytes, self.memory_bytes);
        set(&mut config.queue, self.queue);
        set(&mut config.idle_exit_s, self.idle_exit_s);
        set(&mut config.log_level, self.log_level);
        set(&mut config.log_format, self.log_format);
        config
    }
}

/// What jobs may take.
pub(super) fn job_limits(config: &Config) -> JobLimits {
    JobLimits {
        queue: config.queue as usize,
        queue_bytes: config.queue_bytes,
        history: config.history,
        ttl_s: config.result_ttl_s,
        total_bytes: config.results_total_bytes,
        memory_bytes: config.result_bytes,
    }
}

/// How requests are drawn that leave it open, and how large.
pub(super) fn drawing(config: &Config) -> Drawing {
    Drawing {
        default_checkpoint: config.default_checkpoint.clone(),
        vae: config.default_vae.clone(),
        keep_alive_s: (config.keep_alive_s >= 0).then_some(config.keep_alive_s as f64),
        precision: config.precision.resolve(),
        styles_dirs: config.styles_dirs(),
        result_bytes: config.result_bytes,
        picture_bytes: config.message_bytes,
        blobs: BlobLimits { bytes: config.blobs_bytes, ttl: Duration::from_secs(config.blob_ttl_s) },
        onnx_bytes: config.onnx_bytes,
        onnx_time: Duration::from_secs(config.onnx_time_s),
    }
}

/// What is logged.
pub(super) fn log_filter(config: &Config) -> Result<EnvFilter, String> {
    EnvFilter::try_new(&config.log_level)
        .map_err(|error| format!("log_level: '{}': {error}", config.log_level))
}

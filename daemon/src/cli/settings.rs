//! The flags of `serve`, and what the parts of the daemon are given of the settings.

use std::path::PathBuf;

use clap::Args;
use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};
use crate::jobs::JobLimits;
use crate::paths;
use crate::tasks::Drawing;
use crate::threads;

/// Flags of `serve`; each but the log's file is a setting of the configuration file too.
#[derive(Clone, Debug, Args)]
pub(super) struct ServeArgs {
    /// A folder with models in A1111's layout; may be given several times
    #[arg(long = "models-dir", value_name = "DIR", value_parser = paths::parser())]
    models_dirs: Vec<PathBuf>,
    /// The checkpoint used when a request names none [default: the library's first, else the built-in latentd-demo]
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    default_checkpoint: Option<String>,
    /// The VAE of requests that name none: Automatic, None, or a name
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    default_vae: Option<String>,
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
        set(&mut config.models_dirs, (!self.models_dirs.is_empty()).then_some(self.models_dirs));
        set(&mut config.default_checkpoint, self.default_checkpoint);
        set(&mut config.default_vae, self.default_vae);
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
        result_bytes: config.result_bytes,
        picture_bytes: config.message_bytes,
    }
}

/// What is logged.
pub(super) fn log_filter(config: &Config) -> Result<EnvFilter, String> {
    EnvFilter::try_new(&config.log_level)
        .map_err(|error| format!("log_level: '{}': {error}", config.log_level))
}

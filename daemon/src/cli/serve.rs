//! `latentd serve`: the daemon itself, in the foreground.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Once};
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use super::failure::Failure;
use super::global::GlobalArgs;
use crate::config::{Config, LogFormat};
use crate::engine;
use crate::jobs::{JobLimits, Jobs};
use crate::library::Library;
use crate::process;
use crate::residency::Residency;
use crate::rpc::{self, Daemon, Phase};
use crate::state_dir::{self, StateDir};
use crate::tasks::{Device, DeviceId, Studio};

/// Threads that speak to clients; drawing has its own.
const RPC_THREADS: usize = 2;
/// Time for clients to take what waits for them when the daemon ends.
const CLOSING: Duration = Duration::from_secs(5);
/// Time between looks for results that are too old.
const PURGE_EVERY: Duration = Duration::from_mins(10);

/// Flags of `serve`; each is a setting of the configuration file too.
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// A folder with models in A1111's layout; may be given several times
    #[arg(long = "models-dir", value_name = "DIR")]
    models_dirs: Vec<PathBuf>,
    /// The checkpoint used when a request names none [default: the library's first, else the built-in latentd-demo]
    #[arg(long, value_name = "NAME")]
    default_checkpoint: Option<String>,
    /// Threads that compute; 0 for one per core
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1024))]
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
}

impl ServeArgs {
    fn over(self, mut config: Config) -> Config {
        fn set<T>(setting: &mut T, flag: Option<T>) {
            if let Some(flag) = flag {
                *setting = flag;
            }
        }
        set(&mut config.models_dirs, (!self.models_dirs.is_empty()).then_some(self.models_dirs));
        set(&mut config.default_checkpoint, self.default_checkpoint);
        set(&mut config.threads, self.threads);
        set(&mut config.memory_bytes, self.memory_bytes);
        set(&mut config.queue, self.queue);
        set(&mut config.idle_exit_s, self.idle_exit_s);
        set(&mut config.log_level, self.log_level);
        set(&mut config.log_format, self.log_format);
        config
    }
}

/// Serves until it is told to end.
pub(super) fn run(global: &GlobalArgs, args: ServeArgs) -> Result<ExitCode, Failure> {
    let config = args.over(global.config()?);
    start_log(&config)?;
    process::ignore_file_size_signal();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RPC_THREADS)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start threads: {error}")))?;
    runtime.block_on(serve(config))
}

async fn serve(config: Config) -> Result<ExitCode, Failure> {
    // Before the socket exists: who finds it may ask us to end.
    let mut terminate = handle(SignalKind::terminate())?;
    let mut interrupt = handle(SignalKind::interrupt())?;
    let listening = rpc::listen(&config.socket).map_err(Failure::new)?;
    let state_dir = state_dir::claim(&config.state_dir).map_err(Failure::new)?;
    let (jobs, studio) = build(&config, &state_dir)?;
    let drawing = engine::start(Arc::clone(&jobs), Arc::clone(&studio.device)).map_err(Failure::new)?;
    studio.library.start().map_err(Failure::new)?;
    let threads = studio.threads();
    let daemon = Arc::new(Daemon::new(config, Arc::clone(&jobs), studio));
    let server = tokio::spawn(rpc::serve(Arc::clone(&daemon), listening.listener));
    tokio::spawn(purge_now_and_then(Arc::clone(&jobs)));
    tokio::spawn(end_when_idle(Arc::clone(&daemon)));
    announce(&listening.path)?;
    info!(socket = %listening.path.display(), threads, "ready");

    let mut phase = daemon.phase.subscribe();
    tokio::select! {
        _ = terminate.recv() => info!("SIGTERM: finishing what runs"),
        _ = interrupt.recv() => info!("SIGINT: finishing what runs"),
        _ = phase.wait_for(|phase| *phase != Phase::Running) => (),
    }
    daemon.advance(Phase::Stopping);
    // Writes to disk for each waiting job; signals must be heard meanwhile.
    let stopped = tokio::task::spawn_blocking(move || {
        jobs.stop();
        drawing.join()
    });
    tokio::select! {
        ended = stopped => if let Ok(Err(_)) | Err(_) = ended { error!("the engine did not end well") },
        _ = terminate.recv() => return Ok(abort(&listening.path)),
        _ = interrupt.recv() => return Ok(abort(&listening.path)),
    }
    daemon.advance(Phase::Closing);
    if tokio::time::timeout(CLOSING, server).await.is_err() {
        warn!("some clients did not take their answers; results are kept");
    }
    info!("ended");
    Ok(ExitCode::SUCCESS)
}

/// Ends at once; the running job is reported as interrupted by the next daemon.
fn abort(socket: &Path) -> ExitCode {
    warn!("a second signal: ending at once");
    std::fs::remove_file(socket).ok();
    // Not by returning: that would wait for the engine's thread.
    std::process::exit(1)
}

fn build(config: &Config, state_dir: &StateDir) -> Result<(Arc<Jobs>, Arc<Studio>), Failure> {
    for folder in &config.models_dirs {
        if !folder.is_dir() {
            // Made, so that it can be watched: a new user puts a first file there.
            match std::fs::create_dir_all(folder.join("Stable-diffusion")) {
                Ok(()) => info!(folder = %folder.display(), "made a models folder"),
                Err(error) => warn!(folder = %folder.display(), %error, "models folder cannot be made"),
            }
        }
    }
    let limits = JobLimits {
        queue: config.queue as usize,
        queue_bytes: config.queue_bytes,
        history: config.history,
        ttl_s: config.result_ttl_s,
        total_bytes: config.results_total_bytes,
        memory_bytes: config.result_bytes,
    };
    let jobs = Arc::new(Jobs::open(&config.state_dir, limits).map_err(Failure::new)?);
    let told = Arc::clone(&jobs);
    let library =
        Library::open(config.models_dirs.clone(), &config.state_dir, move |event| told.library_event(event));
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(config.compute_threads())
        .thread_name(|index| format!("compute-{index}"))
        .build()
        .map_err(|error| Failure::new(format!("cannot start the compute threads: {error}")))?;
    let studio = Studio {
        library: Arc::new(library),
        residency: Residency::new(config.memory_budget()),
        device: Arc::new(Device { id: DeviceId::Cpu, pool }),
        default_checkpoint: config.default_checkpoint.clone(),
        precision: config.precision.resolve(),
        result_bytes: config.result_bytes,
        picture_bytes: config.message_bytes,
        outputs_dir: state_dir.outputs.clone(),
        told_built_in: Once::new(),
    };
    Ok((jobs, Arc::new(studio)))
}

/// The one line on stdout, for whoever started us.
fn announce(socket: &Path) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "latentd: listening on {}", socket.display())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::new(format!("cannot write to stdout: {error}")))
}

fn start_log(config: &Config) -> Result<(), Failure> {
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log_level)
        .map_err(|error| Failure::usage(format!("log_level: '{}': {error}", config.log_level)))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    let started = match config.log_format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    started.map_err(|error| Failure::new(format!("cannot start the log: {error}")))
}

fn handle(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::new(format!("cannot handle signals: {error}")))
}

async fn purge_now_and_then(jobs: Arc<Jobs>) {
    let mut tick = tokio::time::interval(PURGE_EVERY);
    loop {
        tick.tick().await;
        let jobs = Arc::clone(&jobs);
        tokio::task::spawn_blocking(move || jobs.purge()).await.ok();
    }
}

/// Ends the daemon once nobody has used it for long enough, if that is wanted.
async fn end_when_idle(daemon: Arc<Daemon>) {
    let idle = Duration::from_secs(daemon.config.idle_exit_s);
    if idle.is_zero() {
        return;
    }
    let mut activity = daemon.activity.subscribe();
    loop {
        let changed = tokio::time::timeout(idle, activity.changed()).await.is_ok();
        let connections = daemon.connections.load(std::sync::atomic::Ordering::Relaxed);
        if !changed && connections == 0 && daemon.jobs.is_idle() {
            info!("idle for {} s", idle.as_secs());
            daemon.advance(Phase::Stopping);
            return;
        }
    }
}

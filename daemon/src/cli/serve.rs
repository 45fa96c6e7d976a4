//! `latentd serve`: the daemon itself, in the foreground.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Once, Weak};
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{fmt, reload};

use super::failure::Failure;
use super::give_way::GiveWay;
use super::global::GlobalArgs;
use super::log_file::LogFile;
use super::log_lines::LogLines;
use super::reload::{Reload, SetFilter};
use super::settings::{ServeArgs, drawing, job_limits, log_filter};
use crate::blobs::Blobs;
use crate::config::{Config, LogFormat};
use crate::device;
use crate::engine;
use crate::folders::Folders;
use crate::jobs::{Jobs, Watcher};
use crate::library::{Library, NO_FOLDER};
use crate::live::Live;
use crate::memory::Memory;
use crate::plugins::Plugins;
use crate::process::{self, Terminal};
use crate::reserve;
use crate::rpc::{self, Daemon, Phase, SocketFile};
use crate::state_dir::{self, StateDir};
use crate::storage::CountedFolder;
use crate::styles::Styles;
use crate::tasks::{Decoding, Device, DeviceId, Studio};

/// Threads that speak to clients; drawing has its own.
const RPC_THREADS: usize = 2;
/// Time for clients to take what waits for them when the daemon ends.
const CLOSING: Duration = Duration::from_secs(5);
/// Time for the log to be written when the daemon ends.
const LOG_CLOSING: Duration = Duration::from_secs(1);
/// Time between looks for results that are too old.
const PURGE_EVERY: Duration = Duration::from_mins(10);
/// Time between looks whether there is room on the disk for what it refused.
const SAVE_EVERY: Duration = Duration::from_secs(5);

/// Serves until it is told to end.
pub(super) fn run(global: &GlobalArgs, args: ServeArgs) -> Result<ExitCode, Failure> {
    let config = args.clone().over(global.config()?);
    let log = LogLines::default();
    let set_filter = start_log(&config, args.log_file.as_deref(), &log)?;
    process::ignore_file_size_signal();
    process::share_arenas();
    reserve::prepare();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RPC_THREADS)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start threads: {error}")))?;
    let ended = runtime.block_on(serve(config, Reload { global: global.clone(), args, set_filter }));
    log.flush(LOG_CLOSING);
    match ended? {
        End::Well => Ok(ExitCode::SUCCESS),
        // Not by returning: that would wait for the engine's thread.
        End::AtOnce => std::process::exit(1),
    }
}

/// How the daemon ends.
enum End {
    /// All that ran is finished.
    Well,
    /// The running job is reported as interrupted by the next daemon.
    AtOnce,
}

async fn serve(config: Config, reload: Reload) -> Result<End, Failure> {
    // Before the socket exists: who finds it may ask us to end.
    let mut terminate = handle(SignalKind::terminate())?;
    let mut interrupt = handle(SignalKind::interrupt())?;
    let hangup = (!process::ignores_hangup()).then(|| handle(SignalKind::hangup())).transpose()?;
    let terminal = Terminal::find();
    let listening = rpc::listen(&config.socket).map_err(Failure::new)?;
    let state_dir = Arc::new(state_dir::claim(&config.state_dir).map_err(Failure::new)?);
    let (jobs, studio) = build(&config, &state_dir)?;
    let drawing = engine::start(Arc::clone(&jobs), Arc::clone(&studio.device)).map_err(Failure::new)?;
    studio.library.start().map_err(Failure::new)?;
    let give_way: Arc<dyn Watcher> = Arc::new(GiveWay::new(Arc::clone(&studio.library)));
    jobs.watch_all(&give_way);
    if config.hash_in_background {
        studio.library.start_hashing().map_err(Failure::new)?;
    }
    let threads = studio.threads();
    let daemon = Arc::new(Daemon::new(config, &state_dir, Arc::clone(&jobs), studio));
    let socket = Arc::downgrade(&listening.socket);
    let path = listening.socket.path.clone();
    let mut server = tokio::spawn(rpc::serve(Arc::clone(&daemon), listening));
    tokio::spawn(purge_now_and_then(Arc::clone(&daemon)));
    for folder in daemon.folders() {
        tokio::spawn(count_as_it_changes(Arc::clone(&daemon), folder));
    }
    tokio::spawn(end_when_idle(Arc::clone(&daemon)));
    announce(&path)?;
    let roots = daemon.config.get().models_roots().into_iter().map(|root| root.path).collect::<Vec<_>>();
    daemon.lookers.run(move || tell_missing_folders(&roots));
    preload(&daemon);
    info!(socket = %path.display(), threads, "ready");

    let mut phase = daemon.phase.subscribe();
    tokio::select! {
        _ = terminate.recv() => info!("SIGTERM: finishing what runs"),
        _ = interrupt.recv() => info!("SIGINT: finishing what runs"),
        () = heed_hangups(hangup, terminal, Arc::clone(&daemon), reload) => {
            info!("SIGHUP: the terminal is gone; finishing what runs");
        }
        _ = phase.wait_for(|phase| *phase != Phase::Running) => (),
        _ = &mut server => error!("the socket is served no more; finishing what runs"),
    }
    daemon.advance(Phase::Stopping);
    let grace = Duration::from_secs(daemon.config.get().stop_grace_s);
    let running = Arc::clone(&jobs);
    // Writes to disk for each waiting job; signals must be heard meanwhile.
    let ending = Arc::clone(&daemon);
    let mut stopped = tokio::spawn(async move {
        let stop = move || {
            jobs.stop();
            Ok(drawing.join().is_ok())
        };
        ending.keepers.call(stop).await
    });
    let mut late = std::pin::pin!(tokio::time::sleep(grace));
    let mut is_late = false;
    loop {
        tokio::select! {
            ended = &mut stopped => {
                if !matches!(ended, Ok(Ok(true))) {
                    error!("the engine did not end well");
                }
                break;
            }
            () = &mut late, if !is_late => {
                is_late = true;
                running.interrupt_running();
            }
            _ = terminate.recv() => return Ok(end_at_once(&socket)),
            _ = interrupt.recv() => return Ok(end_at_once(&socket)),
        }
    }
    daemon.advance(Phase::Closing);
    if server.is_finished() {
        // What it served is in the log, or it ended at this very moment.
    } else if tokio::time::timeout(CLOSING, &mut server).await.is_err() {
        warn!("some clients did not take their answers; results are kept");
    }
    info!("ended");
    Ok(End::Well)
}

fn end_at_once(socket: &Weak<SocketFile>) -> End {
    warn!("a second signal: ending at once");
    if let Some(socket) = socket.upgrade() {
        socket.remove();
    }
    End::AtOnce
}

fn build(config: &Config, state_dir: &Arc<StateDir>) -> Result<(Arc<Jobs>, Arc<Studio>), Failure> {
    if config.models_dirs.contains(&Config::default_models_dir()) {
        make_default_models_dir();
    }
    let jobs = Arc::new(Jobs::open(Arc::clone(state_dir), job_limits(config)).map_err(Failure::new)?);
    let told = Arc::clone(&jobs);
    let library =
        Library::open(config.models_roots(), &config.state_dir, move |event| told.library_event(event));
    let threads = config.compute_threads();
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|index| format!("compute-{index}"))
        .build()
        .map_err(|error| Failure::new(format!("cannot start the compute threads: {error}")))?;
    let (device, budget) = device::open(Arc::new(pool), config.memory_budget()).map_err(Failure::usage)?;
    let memory = Memory::new(device, budget);
    memory.keep_at_most(config.plugin_cache_budget(budget));
    let (folders, own) = (config.plugin_folders(), state_dir.plugin_folders());
    let plugins = Plugins::new(folders, state_dir.plugins(), own, Config::agreements());
    plugins.configure(config.plugins.clone());
    let studio = Studio {
        library: Arc::new(library),
        device: Arc::new(Device { id: DeviceId(0), threads, memory }),
        settings: Live::new(drawing(config)),
        folders: Folders::new(),
        blobs: Blobs::default(),
        decoding: Decoding::default(),
        styles: Styles::new(state_dir.styles()),
        plugins,
        outputs_dir: state_dir.outputs(),
        told_built_in: Once::new(),
    };
    Ok((jobs, Arc::new(studio)))
}

/// Made, so that it can be watched: a new user puts a first file there.
fn make_default_models_dir() {
    let folder = Config::default_models_dir();
    if folder.is_dir() {
        return;
    }
    match std::fs::create_dir_all(folder.join("Stable-diffusion")) {
        Ok(()) => info!(folder = %folder.display(), "made a models folder"),
        Err(error) => warn!(folder = %folder.display(), %error, "models folder cannot be made"),
    }
}

/// Brings in what the settings say; whoever asks for a picture meanwhile goes first.
fn preload(daemon: &Arc<Daemon>) {
    let names = daemon.config.get().preload.clone();
    if names.is_empty() {
        return;
    }
    let studio = Arc::clone(&daemon.studio);
    daemon.loaders.run(move || {
        // Names are looked up in what the first scan finds, however long that takes.
        studio.library.snapshot();
        for name in &names {
            if let Err(error) = studio.load(name, None) {
                warn!(name, error = error.text, "not brought into memory at the start");
            }
        }
    });
}

/// Names models folders that are not there: misspelt, or on a disk that is not there yet. One may not answer at all.
fn tell_missing_folders(models_dirs: &[PathBuf]) {
    for folder in models_dirs.iter().filter(|folder| !folder.is_dir()) {
        warn!(folder = %folder.display(), "{}", NO_FOLDER);
    }
}

/// The one line on stdout, for whoever started us.
fn announce(socket: &Path) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "latentd: listening on {}", socket.display())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::new(format!("cannot write to stdout: {error}")))
}

/// Starts the log, which panics go to as well; gives what changes its filter.
fn start_log(config: &Config, file: Option<&Path>, out: &LogLines) -> Result<SetFilter, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new(format!("cannot start the log: {error}"));
    let filter = log_filter(config).map_err(Failure::usage)?;
    let (filter, handle) = reload::Layer::new(filter);
    let lines = fmt::layer().with_writer(out.clone()).with_ansi(false).log_internal_errors(false);
    let lines = match config.log_format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    let started = tracing_subscriber::registry().with(lines).with(filter).try_init();
    started.map_err(|error| failed(&error))?;
    let tell_lost =
        |lost| warn!(lost, "lines of this log were lost: it could not be written as fast as they came");
    let to: Box<dyn Write + Send> = match file {
        Some(path) => Box::new(
            LogFile::open(path)
                .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))?,
        ),
        None => Box::new(std::io::stderr()),
    };
    out.start(to, tell_lost).map_err(|error| failed(&error))?;
    // What Rust itself says of a panic goes to stderr at once, and so might wait there.
    std::panic::set_hook(Box::new(|panic| error!("{}", panic.to_string().replace('\n', " "))));
    Ok(Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string())))
}

fn handle(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::new(format!("cannot handle signals: {error}")))
}

async fn purge_now_and_then(daemon: Arc<Daemon>) {
    let mut tick = tokio::time::interval(SAVE_EVERY);
    let mut purged = Instant::now();
    loop {
        tick.tick().await;
        if purged.elapsed() < PURGE_EVERY && daemon.jobs.unsaved_bytes() == 0 {
            continue;
        }
        purged = Instant::now();
        let jobs = Arc::clone(&daemon.jobs);
        let purge = move || {
            jobs.purge();
            Ok(())
        };
        daemon.keepers.call(purge).await.ok();
    }
}

async fn count_as_it_changes(daemon: Arc<Daemon>, folder: Arc<CountedFolder>) {
    let mut changes = daemon.jobs.changes();
    while changes.changed().await.is_ok() {
        folder.count_again(&daemon.lookers).await;
    }
}

/// Ends the daemon once nobody has used it for long enough, if that is wanted.
async fn end_when_idle(daemon: Arc<Daemon>) {
    let (mut activity, mut reloaded) = (daemon.activity.subscribe(), daemon.reloaded.subscribe());
    loop {
        let idle_s = daemon.config.get().idle_exit_s;
        let long_enough = async {
            match idle_s {
                0 => std::future::pending().await,
                seconds => tokio::time::sleep(Duration::from_secs(seconds)).await,
            }
        };
        tokio::select! {
            _ = activity.changed() => continue,
            _ = reloaded.changed() => continue,
            () = long_enough => (),
        }
        let connections = daemon.connections.load(std::sync::atomic::Ordering::Relaxed);
        if connections == 0 && daemon.jobs.is_idle() && daemon.jobs.unsaved_bytes() == 0 {
            info!("idle for {idle_s} s");
            daemon.advance(Phase::Stopping);
            return;
        }
    }
}

/// Reads the configuration again at each SIGHUP, until one comes because the terminal is gone. With SIGHUP ignored from the
/// start (`nohup`) it stays so.
async fn heed_hangups(hangup: Option<Signal>, terminal: Terminal, daemon: Arc<Daemon>, reload: Reload) {
    let Some(mut hangup) = hangup else {
        return std::future::pending().await;
    };
    let reload = Arc::new(reload);
    while hangup.recv().await.is_some() {
        if terminal.is_gone() {
            return;
        }
        let (daemon, reload) = (Arc::clone(&daemon), Arc::clone(&reload));
        // One after the other, each off the threads that serve the socket.
        let (keeper, reload) = (Arc::clone(&daemon), move || {
            reload.run(&daemon);
            Ok(())
        });
        keeper.keepers.call(reload).await.ok();
    }
}

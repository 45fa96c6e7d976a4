//! What every connection shares.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Instant;

use latentd_client::protocol::{ConfigStatus, StorageStatus};
use tokio::sync::watch;

use super::buffers::Buffers;
use super::holders::Holders;
use super::registry::Registry;
use crate::config::Config;
use crate::jobs::Jobs;
use crate::live::Live;
use crate::state_dir::StateDir;
use crate::storage::CountedFolder;
use crate::tasks::Studio;
use crate::workers::Workers;

/// How far the daemon's end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Takes jobs.
    Running,
    /// Takes no more jobs; the running one goes on, and answers are still given.
    Stopping,
    /// What waits for clients is sent, then connections end.
    Closing,
}

/// What every connection shares.
pub(crate) struct Daemon {
    pub config: Live<Config>,
    /// What came of reading the configuration again, once it was.
    pub reloaded: watch::Sender<Option<ConfigStatus>>,
    pub jobs: Arc<Jobs>,
    pub studio: Arc<Studio>,
    /// Jobs that end with their connection.
    pub holders: Holders,
    /// Resolve what is submitted: they look at models and folders of users, one of which may not answer.
    pub resolvers: Workers,
    /// Read and write the history and results of jobs.
    pub books: Workers,
    /// Look at the library.
    pub lookers: Workers,
    /// Call quick methods of plugins, any of which may get stuck.
    pub callers: Workers,
    /// Bring models into memory.
    pub loaders: Workers,
    results: Arc<CountedFolder>,
    outputs: Arc<CountedFolder>,
    /// Keep house: look after the socket, the settings and what grows old.
    pub keepers: Workers,
    pub started: Instant,
    pub phase: watch::Sender<Phase>,
    pub connections: AtomicU32,
    /// Which of them are in use.
    pub registry: Registry,
    /// Memory for messages that are not whole.
    pub buffers: Buffers,
    /// Changes when a connection comes or goes.
    pub activity: watch::Sender<u64>,
}

impl Daemon {
    /// A daemon that takes jobs.
    pub(crate) fn new(config: Config, state_dir: &StateDir, jobs: Arc<Jobs>, studio: Arc<Studio>) -> Self {
        let daemon = Self {
            registry: Registry::default(),
            buffers: Buffers::new(config.buffers_budget()),
            config: Live::new(config),
            reloaded: watch::Sender::new(None),
            jobs,
            studio,
            holders: Holders::default(),
            resolvers: Workers::growing("resolve", 8),
            books: Workers::new("jobs", 4),
            lookers: Workers::growing("look", 8),
            callers: Workers::growing("call", 4),
            loaders: Workers::new("load", 4),
            results: CountedFolder::new(state_dir.results()),
            outputs: CountedFolder::new(state_dir.outputs()),
            keepers: Workers::new("keep", 2),
            started: Instant::now(),
            phase: watch::Sender::new(Phase::Running),
            connections: AtomicU32::new(0),
            activity: watch::Sender::new(0),
        };
        // The first who asks is told something.
        daemon.storage();
        daemon
    }

    /// What lies on the disk, as it was counted a moment ago.
    pub(crate) fn storage(&self) -> StorageStatus {
        StorageStatus {
            results: self.results.status(&self.lookers),
            outputs: self.outputs.status(&self.lookers),
            unsaved_bytes: self.jobs.unsaved_bytes(),
        }
    }

    /// Where jobs write. Each is to be counted again as it changes.
    pub(crate) fn folders(&self) -> [Arc<CountedFolder>; 2] {
        [&self.results, &self.outputs].map(Arc::clone)
    }

    /// Moves on to `phase`; never back.
    pub(crate) fn advance(&self, phase: Phase) {
        self.phase.send_if_modified(|current| {
            let later = *current < phase;
            *current = (*current).max(phase);
            later
        });
    }
}

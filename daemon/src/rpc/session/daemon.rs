//! What every connection shares.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Instant;

use tokio::sync::watch;

use crate::config::Config;
use crate::engine::Engine;

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
    pub config: Config,
    pub engine: Arc<Engine>,
    pub started: Instant,
    pub phase: watch::Sender<Phase>,
    pub connections: AtomicU32,
    /// Changes when a connection comes or goes.
    pub activity: watch::Sender<u64>,
}

impl Daemon {
    /// A daemon that takes jobs.
    pub(crate) fn new(config: Config, engine: Arc<Engine>) -> Self {
        Self {
            config,
            engine,
            started: Instant::now(),
            phase: watch::Sender::new(Phase::Running),
            connections: AtomicU32::new(0),
            activity: watch::Sender::new(0),
        }
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

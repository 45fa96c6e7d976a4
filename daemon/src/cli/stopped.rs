//! Ctrl-C, for commands that end something first.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::failure::Failure;

/// Ctrl-C, or a polite kill.
pub(super) struct Stopped {
    interrupt: Signal,
    terminate: Signal,
}

impl Stopped {
    pub(super) fn listen() -> Result<Self, Failure> {
        let handle =
            |kind| signal(kind).map_err(|error| Failure::new(format!("cannot handle signals: {error}")));
        Ok(Self { interrupt: handle(SignalKind::interrupt())?, terminate: handle(SignalKind::terminate())? })
    }

    pub(super) async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => (),
            _ = self.terminate.recv() => (),
        }
    }
}

//! Threads of the daemon, which begin while there is memory for that.

use std::io;
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle};

/// Starts a thread and waits until it has begun. One that finds no memory to begin with ends the process: that must not
/// come upon a daemon that already serves.
pub(crate) fn start<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let (begun, begins) = mpsc::sync_channel(1);
    let started = Builder::new().name(name.into()).spawn(move || {
        // Who started it waits.
        begun.send(()).ok();
        work()
    })?;
    begins.recv().map_err(io::Error::other)?;
    Ok(started)
}

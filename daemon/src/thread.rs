//! Threads of the daemon, which begin while there is memory for that.

use std::io;
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle};

/// What a thread takes to begin with: its stack, and a little one for when that is full.
const FIRST_BYTES: usize = 3 << 20;

/// Starts a thread and waits until it has begun. One that finds no memory to begin with ends the process: that must not
/// come upon a daemon that already serves, so it is an error if there is none just before.
pub(crate) fn start<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    // From the system itself: what the heap has left is no place for a stack.
    drop(memmap2::MmapMut::map_anon(FIRST_BYTES)?);
    let (begun, begins) = mpsc::sync_channel(1);
    let started = Builder::new().name(name.into()).spawn(move || {
        // Who started it waits.
        begun.send(()).ok();
        work()
    })?;
    begins.recv().map_err(io::Error::other)?;
    Ok(started)
}

//! What computes.

use std::sync::Arc;

use crate::memory::Memory;

/// Which one, counted from 0. Each has a thread that draws, and takes the jobs that are for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceId(pub usize);

/// One that is there.
pub(crate) struct Device {
    pub id: DeviceId,
    /// Threads that compute.
    pub threads: usize,
    /// What is in its memory.
    pub memory: Arc<Memory>,
}

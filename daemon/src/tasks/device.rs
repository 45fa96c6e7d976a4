//! What computes.

use rayon::ThreadPool;

/// Which one. Each has a thread that draws, and takes the jobs that are for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceId {
    Cpu,
}

/// One that is there.
pub(crate) struct Device {
    pub id: DeviceId,
    /// The threads that compute.
    pub pool: ThreadPool,
}

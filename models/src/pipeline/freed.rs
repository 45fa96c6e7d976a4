//! Memory between phases.

use crate::nn::Device;

/// Gives memory that layers kept for their next results back to the system, however a phase ends.
pub(super) struct FreedAtTheEnd(pub Device);

impl Drop for FreedAtTheEnd {
    fn drop(&mut self) {
        self.0.release();
    }
}

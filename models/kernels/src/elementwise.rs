//! Sums of activations.

use rayon::prelude::*;

const CHUNK: usize = 1 << 14;

/// `x (batch, positions, channels) += bias (batch, channels)`.
///
/// # Panics
/// If the lengths do not fit.
pub fn add_per_channel(x: &mut [f32], bias: &[f32], batch: usize, channels: usize) {
    assert!(batch > 0 && channels > 0 && bias.len() == batch * channels, "add: bias");
    assert!(x.len().is_multiple_of(batch * channels), "add: activations");
    let positions = x.len() / (batch * channels);
    let rows = (CHUNK / channels).max(1);
    for (x, bias) in x.chunks_exact_mut((positions * channels).max(1)).zip(bias.chunks_exact(channels)) {
        x.par_chunks_mut(rows * channels).for_each(|x| {
            for row in x.chunks_exact_mut(channels) {
                for (x, bias) in row.iter_mut().zip(bias) {
                    *x += bias;
                }
            }
        });
    }
}

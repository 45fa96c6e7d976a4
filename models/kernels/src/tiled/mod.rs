//! Kernels over bf16 activations with f32 sums, made for AMX's tiles.
//!
//! Elsewhere the same code runs with the tile product emulated in f32: slower, correct to the same tolerance, not the
//! same bits. Activations are channels last. As for the f32 kernels, results do not depend on how work is cut: each
//! sum is taken in the order of the packed weights' `k`, and attention goes over blocks of a fixed number of keys.

mod attention;
mod columns;
mod convolution;
mod finish;
mod norm;
mod pack;
mod product;
mod tiles;

pub use attention::{PackedKeys, attention, attention_packed};
pub use convolution::{FUSED_PIXELS, conv2d, conv2d_normed};
pub use norm::{ChannelScales, group_norm, layer_norm};
pub use pack::TiledMatrix;

pub use crate::lanes::Element;

use half::bf16;

use crate::{Epilogue, Isa, elements};

/// `x (m, k)` times `weights (n, k)` → `out (m, n)`, finished by `epilogue`.
///
/// # Panics
/// If lengths do not fit the weights' shape and `m`, or the weights are not a linear layer's.
pub fn linear<O: Element>(
    isa: Isa,
    x: &[bf16],
    m: usize,
    weights: &TiledMatrix,
    epilogue: &Epilogue<O>,
    out: &mut [O],
) {
    let (n, k) = weights.shape();
    assert_eq!(x.len(), elements(&[m, k]), "linear: input of {m} rows");
    assert_eq!(weights.taps, 1, "linear: weights of a convolution");
    assert!(u32::try_from(m).is_ok_and(|m| m < u32::MAX), "linear: {m} rows");
    let finish = finish::Finish::new(epilogue, m, n, weights.gated, out);
    product::multiply(isa, &product::Matrix { values: x, rows: m, width: k }, weights, &finish);
}

//! Layers. The only place that knows which kernel runs: networks call these, and a faster kernel replaces a
//! function body here.
//!
//! Activations are f32 and channels last, `(batch, height, width, channels)` for pictures and
//! `(batch, tokens, channels)` for sequences, so that one is the other reshaped.

mod attention;
mod conv2d;
mod linear;
mod norm;
mod op;
mod pointwise;

pub use attention::attention;
pub use conv2d::{Conv2d, ConvConfig};
pub use linear::Linear;
pub use norm::{GroupNorm, LayerNorm};
pub use pointwise::{add_per_channel, geglu, quick_gelu, resize_nearest, silu};

use candle_core::{Result, Tensor};

/// `(batch, channels, height, width)`, as files and users have it → channels last.
pub fn to_channels_last(x: &Tensor) -> Result<Tensor> {
    x.permute((0, 2, 3, 1))?.contiguous()
}

/// Channels last → `(batch, channels, height, width)`.
pub fn to_channels_first(x: &Tensor) -> Result<Tensor> {
    x.permute((0, 3, 1, 2))?.contiguous()
}

/// Which kernels run here: "avx512", "avx2" or "portable".
pub fn kernels() -> &'static str {
    latentd_kernels::Isa::current().name()
}

//! Layers. The only place that knows which kernel runs: networks call these, and a faster kernel replaces a
//! function body here.
//!
//! Activations are channels last, `(batch, height, width, channels)` for pictures and `(batch, tokens, channels)` for
//! sequences, so that one is the other reshaped; f32 or bf16, see [`Precision`].

mod activations;
mod attention;
mod conv2d;
mod ends;
mod linear;
mod norm;
mod pointwise;

pub use activations::{Activations, Precision};
pub use attention::{Keys, attention, attention_of_each};
pub use conv2d::{Conv2d, ConvConfig};
pub use ends::Ends;
pub use latentd_kernels::Activation;
pub use linear::{GatedLinear, Linear};
pub use norm::{GroupNorm, LayerNorm};
pub use pointwise::silu;

/// An error if the environment variable `LATENTD_KERNELS` names none of them; for a program's start.
pub fn check_kernels() -> Result<(), String> {
    latentd_kernels::Isa::wanted().map(drop)
}

/// Which kernels run here: "amx", "avx512bf16", "avx512", "avx2" or "portable".
pub fn kernels() -> &'static str {
    latentd_kernels::Isa::current().name()
}

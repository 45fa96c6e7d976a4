//! Layers, the weights that go into them, and the devices that compute them. Networks call layers; what runs is the
//! device's choice.
//!
//! Activations are channels last, `(batch, height, width, channels)` for pictures and `(batch, tokens, channels)` for
//! sequences, so that one is the other reshaped; f32 or bf16, see [`Precision`].

mod attention;
mod attention_in_windows;
mod attention_whole;
pub mod backend;
mod conv2d;
mod linear;
mod loader;
mod low_rank;
mod norm;
mod ops;
mod parts;
mod patch;
mod run;
mod transform;

pub use attention::{KeySet, Own, RowKeys, attention, attention_of_rows, keys};
pub use attention_in_windows::{Heads, Windows, attention_in_windows, of_distances};
pub use attention_whole::{attention_with_bias, behind, received};
pub use backend::{
    Activations, Backend, ConvConfig, Device, Epilogue, Keys, Matrix, Pointwise, Precision, Vector,
};
pub use conv2d::Conv2d;
pub use latentd_kernels::{Activation, Wrap};
pub use linear::{GatedLinear, Linear};
pub use loader::Loader;
pub use low_rank::LowRank;
pub(crate) use low_rank::{add_product, transposed};
pub use norm::{GroupNorm, LayerNorm};
pub use ops::{add, cat_channels, multiply, pixel_shuffle, resized_nearest, upload};
pub use parts::{Part, Parts, Table};
pub use patch::Patch;
pub(crate) use patch::working_bytes;
pub use run::Run;
pub use transform::KeyValueTransform;

/// An error if the environment variable `LATENTD_KERNELS` names none of them; for a program's start.
pub fn check_kernels() -> Result<(), String> {
    latentd_kernels::Isa::wanted().map(drop)
}

/// Which kernels run here: "amx", "avx512bf16", "avx512", "avx2" or "portable".
pub fn kernels() -> &'static str {
    latentd_kernels::Isa::current().name()
}

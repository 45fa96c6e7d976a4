//! CPU kernels for diffusion networks, usable without any tensor library.
//!
//! The kernels at the crate's root are f32 arithmetic on channels-last activations over weights packed once
//! ([`PackedMatrix`], f32, f16 or bf16 in memory); those in [`tiled`] take bf16 activations and weights and add up in
//! f32. The code path is chosen at run time ([`Isa`]).
//!
//! **Results do not depend on how work is cut.** Each output element is one chain of multiply-adds in the order
//! of `k`, whatever the tile, the batch beside it, or the number of threads; reductions have a fixed shape. That
//! is what lets a picture be the same bytes alone and in a batch. Work runs on the rayon pool of the caller.

mod activation;
mod arena;
mod attention;
mod bridge;
mod buffer;
mod bytes;
mod convolution;
mod epilogue;
mod half_floats;
mod isa;
mod lanes;
mod matmul;
mod microkernel;
mod norm;
mod normal;
mod normal_torch;
mod out_of_memory;
mod pack;
mod plus_product;
mod processor;
mod quicker;
mod stop;
pub mod tiled;

/// Number of elements of these dimensions, which lengths are held against before anything is written through a
/// pointer: a product that wrapped round could fit by chance.
fn elements(dimensions: &[usize]) -> usize {
    let product = dimensions.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
    product.expect("dimensions whose product is no size in memory")
}

pub use activation::{gelu, silu};
pub use arena::{Arena, Opened};
pub use attention::{AttentionShape, PackedKeys, attention, attention_packed};
pub use bridge::{Cut, halve};
pub use buffer::{Buffer, BufferStatus, Plain, buffer_status, release_buffers};
pub use convolution::{ConvShape, Wrap, conv2d};
pub use epilogue::{Activation, Epilogue};
pub use isa::Isa;
pub use matmul::linear;
pub use norm::{GroupNormShape, group_norm, layer_norm};
pub use normal::philox_normal;
pub use normal_torch::torch_normal;
pub use out_of_memory::OutOfMemory;
pub use pack::{PackError, PackedMatrix, WeightDtype, Weights};
pub use quicker::bf16_is_quicker;
pub use stop::Stop;

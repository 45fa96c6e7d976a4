//! Sixteen f32 at once: AVX-512, AVX2, or plain Rust that any compiler target vectorises as it can. Functions come twice:
//! for results that will be rounded to bf16, and to f32's precision.

mod dispatch;
mod element;
mod portable;
mod vector;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) use dispatch::with_lanes;
pub use element::Element;
pub(crate) use portable::Portable;
pub(crate) use vector::{LANES, Lanes};
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

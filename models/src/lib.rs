//! Stable Diffusion, from files on disk to pictures.
//!
//! This crate knows tensors. It knows no socket, job or plugin: a caller hands it a file, a request, a
//! [`pipeline::Watch`] and [`pipeline::Stages`], and gets images. It spawns no threads of its own; kernels run on the
//! rayon pool the caller is in (see `rayon::ThreadPool::install`).

pub mod adapters;
mod error;
pub mod files;
pub mod image;
pub mod model;
pub mod networks;
pub mod nn;
pub mod pipeline;
pub mod prompt;
mod python;
pub mod sampling;
mod tensor;
pub mod tensor_ops;
pub mod tiles;

pub use error::{Error, Result};
pub use tensor::Tensor;

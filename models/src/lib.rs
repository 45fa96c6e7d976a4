//! Stable Diffusion, from files on disk to pictures.
//!
//! This crate knows tensors. It knows no socket, job or plugin: a caller hands it a file, a request and a
//! [`pipeline::Hooks`], and gets images. It spawns no threads of its own; kernels run on the rayon pool the
//! caller is in (see `rayon::ThreadPool::install`).

mod error;
pub mod files;
pub mod image;
pub mod networks;
pub mod nn;
pub mod pipeline;
pub mod prompt;
pub mod sampling;

pub use error::{Error, Result};

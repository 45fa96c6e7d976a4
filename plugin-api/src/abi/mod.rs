//! The C ABI, in C's names. Every struct is `repr(C)`, every function pointer `extern "C"`.
//!
//! The rules that hold for all of it stand at the head of the header (`cbindgen.toml`): threads, ownership, errors, growth.
//! A struct that begins with `size` and a list's element only grow at their ends; whatever else changes is another id.

#![allow(non_camel_case_types, reason = "the names are C's")]
#![allow(clippy::pub_underscore_fields, reason = "what is reserved has no other name")]

mod attention;
mod basic;
mod conditioning;
mod control;
mod engine_needs;
mod engines;
mod entry;
mod evals;
mod evaluation;
mod ids;
mod infotext;
mod inputs;
mod library;
mod methods;
mod models;
mod networks;
mod onnx;
mod ops;
mod plan;
mod registry;
mod rewrite;
mod services;
mod stages;
mod subjobs;
mod tags;
mod vae;

pub use attention::*;
pub use basic::*;
pub use conditioning::*;
pub use control::*;
pub use engine_needs::*;
pub use engines::*;
pub use entry::*;
pub use evals::*;
pub use evaluation::*;
pub use ids::*;
pub use infotext::*;
pub use inputs::*;
pub use library::*;
pub use methods::*;
pub use models::*;
pub use networks::*;
pub use onnx::*;
pub use ops::*;
pub use plan::*;
pub use registry::*;
pub use rewrite::*;
pub use services::*;
pub use stages::*;
pub use subjobs::*;
pub use tags::*;
pub use vae::*;

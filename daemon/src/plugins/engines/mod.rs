//! Engines: what plugins compute for whoever names one of their entries, such as `hr_upscaler`.
//!
//! [`registry`] finds an entry in the manifests; [`engine`] is one that is described and may be run, [`running`] runs it with an
//! instance of its plugin and checks what comes of it; [`upscale`] makes whole pictures larger, tile by tile.

mod engine;
mod registry;
mod running;
mod upscale;

pub(crate) use engine::Engine;
pub(super) use registry::{Unknown, find};
pub(super) use running::{Engines, JobOf};
pub(super) use upscale::upscale;

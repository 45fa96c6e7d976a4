//! Engines: what plugins compute for whoever names one of their entries, such as `hr_upscaler`.
//!
//! [`registry`] finds an entry in the manifests; [`engine`] is one that is described and may be run, [`running`] runs it with an
//! instance of its plugin, [`results`] checks what comes of it; [`upscale`] makes whole pictures larger, tile by tile, [`restore`]
//! has faces in them restored; [`service`] runs what was planned for whoever asks, and [`alone`] does for methods of ours.

mod alone;
mod engine;
mod registry;
mod restore;
mod results;
mod running;
mod service;
mod shown;
mod upscale;

pub(crate) use alone::Alone;
pub(crate) use engine::Engine;
pub(super) use engine::asked as described;
pub(super) use registry::{Files, Unknown, find, names, own_names};
pub(super) use restore::restore;
pub(super) use results::coloured;
pub(super) use running::{Engines, JobOf};
pub(super) use upscale::upscale;

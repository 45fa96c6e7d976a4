//! Networks that make pictures larger, or clean them, as standalone ones: a file for each family, told by names and shapes.
//!
//! All take and give pictures of 0…1. Which names a family has, and its layers, stand with it; how a picture comes in and goes
//! out stands in [`kind`].

mod compact;
mod dat;
mod dat_host;
mod kind;
mod parts;
pub(super) mod picture;
mod rrdbnet;
mod shuffled;
mod span;
mod swinir;
mod trunk;

use std::sync::Arc;

use self::kind::Upscaler;
use super::file_network::find;
use super::standalone::Found;
use crate::error::Result;
use crate::files::Tensors;

/// A file's RRDBNet.
pub(super) fn find_rrdbnet(file: &Tensors) -> Option<Result<Arc<dyn Found>>> {
    find::<Upscaler<rrdbnet::RrdbNet>>(file)
}

/// A file's compact Real-ESRGAN.
pub(super) fn find_compact(file: &Tensors) -> Option<Result<Arc<dyn Found>>> {
    find::<Upscaler<compact::Compact>>(file)
}

/// A file's SPAN.
pub(super) fn find_span(file: &Tensors) -> Option<Result<Arc<dyn Found>>> {
    find::<Upscaler<span::Span>>(file)
}

/// A file's `SwinIR`.
pub(super) fn find_swinir(file: &Tensors) -> Option<Result<Arc<dyn Found>>> {
    find::<Upscaler<swinir::SwinIr>>(file)
}

/// A file's DAT.
pub(super) fn find_dat(file: &Tensors) -> Option<Result<Arc<dyn Found>>> {
    find::<Upscaler<dat::Dat>>(file)
}

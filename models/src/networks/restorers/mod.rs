//! Networks that restore faces, and those that find them and tell what of a face is what, as standalone ones: a file for each,
//! told by names and shapes.
//!
//! Restorers take and give faces of −1…1 that lie as they were trained on; who cuts them out of pictures stands elsewhere. How a
//! network is found in a file stands in [`super::file_network`].

mod codeformer;
mod gfpgan;
mod gfpgan_decoder;
mod parsenet;
mod parts;
mod resnet;
mod retinaface;
mod vqgan;

use std::sync::Arc;

use super::file_network::find;
use super::standalone::Found;
use crate::error::Result;
use crate::files::Tensors;

/// A file's GFPGAN.
pub(super) fn find_gfpgan(file: &Tensors) -> Option<Result<Arc<dyn Found>>> {
    find::<gfpgan::Gfpgan>(file)
}

/// A file's `CodeFormer`.
pub(super) fn find_codeformer(file: &Tensors) -> Option<Result<Arc<dyn Found>>> {
    find::<codeformer::CodeFormer>(file)
}

/// A file's `RetinaFace`.
pub(super) fn find_retinaface(file: &Tensors) -> Option<Result<Arc<dyn Found>>> {
    find::<retinaface::RetinaFace>(file)
}

/// A file's `ParseNet`.
pub(super) fn find_parsenet(file: &Tensors) -> Option<Result<Arc<dyn Found>>> {
    find::<parsenet::ParseNet>(file)
}

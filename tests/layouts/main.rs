//! Models in the layouts that people have: folders of diffusers and single files, read and written.

mod convert;
mod folder;
mod merge;
mod merge_loras;

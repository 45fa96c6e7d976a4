//! Reading weights: what is in a file, and its tensors, with every size checked before memory is taken.

mod bytes;
mod inspect;
mod loader;
mod mapped;
mod prediction;
mod resolution;
mod safetensors;

pub use inspect::{FileInfo, FileKind, inspect};
pub(crate) use inspect::{architecture, main_dtype};
pub use loader::Loader;
pub use prediction::{Prediction, config_beside};
pub(crate) use resolution::{SIDES, resolution};
pub use safetensors::SafeTensors;

//! Reading weights: what is in a file, and its tensors, with every size checked before memory is taken.

mod inspect;
mod loader;
mod mapped;
mod safetensors;

pub use inspect::{FileInfo, FileKind, inspect};
pub(crate) use inspect::{family, main_dtype};
pub use loader::Loader;
pub use safetensors::SafeTensors;

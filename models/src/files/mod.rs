//! Reading weights: what is in a file, and its tensors, with every size checked before memory is taken.

mod bytes;
mod container;
mod header;
mod inspect;
mod kinds;
mod mapped;
mod mistaken;
mod open;
mod prediction;
mod resolution;
mod safetensors;
mod tensors;
mod widen;

pub use container::ElementType;
pub use header::LARGEST_HEADER;
pub use inspect::{FileInfo, inspect};
pub(crate) use inspect::{architecture, main_dtype};
pub use kinds::FileKind;
pub use mapped::open_without_waiting;
pub use open::{from_bytes, open, open_file};
pub use prediction::{Prediction, config_beside};
pub(crate) use resolution::native_size;
pub use tensors::{StoredTensor, Tensors};

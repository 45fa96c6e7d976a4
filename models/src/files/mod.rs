//! Reading weights: what is in a file, and its tensors, with every size checked before memory is taken.

mod bytes;
mod container;
mod ema;
mod folder;
mod gguf;
mod header;
mod index;
mod inspect;
mod joined;
mod layout;
mod layout_names;
mod mapped;
mod mistaken;
mod open;
mod prediction;
mod quantised;
mod resolution;
mod safetensors;
mod tensors;
mod torch;
mod widen;
mod write;

pub use container::ElementType;
pub use header::LARGEST_HEADER;
pub use inspect::{FileInfo, FileKind, inspect};
pub(crate) use inspect::{architecture, main_dtype};
pub(crate) use layout::{Network, in_diffusers, would_be};
pub use layout_names::Layout;
pub(crate) use layout_names::{CLIP, UNET, VAE};
pub use mapped::open_without_waiting;
pub use open::{from_bytes, open, open_file};
pub(crate) use prediction::METADATA as PREDICTION_METADATA;
pub use prediction::{Prediction, ToldBy, config_beside};
pub(crate) use resolution::native_size;
pub use tensors::{StoredTensor, Tensors};
pub(crate) use write::{Planned, write};

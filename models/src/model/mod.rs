//! What a checkpoint is: a family's row, and components, each of which may be shared.

mod checkpoint;
mod component;
mod convert;
mod diffusers_config;
mod estimate;
mod family;
mod interpolation;
mod loaded;
mod merge;
mod merged;
mod rewrite;
mod unet_input;
mod vae_file;

pub use checkpoint::Checkpoint;
pub use component::{Component, ComponentKey, ComponentKind, Network, TextEncoder};
pub use convert::{Conversion, Conversions, WeightDtype};
pub use estimate::{Estimate, PictureSize};
pub use family::Family;
pub use interpolation::Interpolation;
pub use loaded::{Model, ModelFacts, ModelShape, ModelSummary};
pub use merge::{Merge, MergeLora, MergeSources};
pub use merged::Merged;
pub use unet_input::UNetInput;
pub use vae_file::{vae_parts, with_vae};

//! Devices: what they must be able to do, and one folder for each.

mod activations;
pub mod cpu;
mod device;
pub mod dry_run;
mod epilogue;
pub mod fake;
mod packed;
mod pointwise;
mod precision;

pub use activations::Activations;
pub use device::{Backend, ConvConfig, Device, DeviceMemory, Norm, ReadWeights, RowOf};
pub use epilogue::Epilogue;
pub use packed::{Keys, Layout, Matrix, Vector};
pub use pointwise::Pointwise;
pub use precision::Precision;

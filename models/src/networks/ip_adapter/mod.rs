//! IP-Adapters (Ye et al. 2023, arXiv:2308.06721): pictures that say what, as further keys and values of a UNet's attentions to the
//! text; and the half of CLIP that they see pictures by.

mod adapter;
mod names;
mod resampler;
mod vision;

pub(super) use adapter::find as find_adapter;
pub(super) use vision::find as find_vision;

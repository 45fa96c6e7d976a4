//! What inpainting does to pictures before and after they are drawn: which part is, how softly, over what, and how what was
//! drawn is put into the picture.

mod gaussian;
mod mask;
mod overlay;
mod preparation;
mod region;
mod soft;
mod surroundings;
mod weighted_histogram;

pub use mask::{LARGEST_BLUR, Mask};
pub use overlay::Overlay;
pub use preparation::{Inpaint, Preparation, Prepared};
pub use region::Region;
pub use soft::soft_mask;
pub use surroundings::fill_from_surroundings;
pub use weighted_histogram::WeightedHistogram;

//! Colours brought back to what they were before a picture was drawn anew (A1111's `img2img_color_correction`).

mod correction;
pub(super) mod histogram;
mod lab;
mod luminosity;

pub use correction::ColourCorrection;

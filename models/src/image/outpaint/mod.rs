//! A picture continued beyond its sides: what is drawn by image to image for that, and how what was drawn becomes the whole.
//! Nothing is drawn here: each [`Job`] is inpainting of a whole picture, which the caller does.
//!
//! Two ways, both A1111's: [`PoorMans`] draws all sides at once, in tiles; [`Mk2`] one side after the other, from noise that
//! has the picture's spectrum.

mod job;
mod margins;
mod matched_noise;
mod mk2;
mod poor_mans;
mod spectrum;

pub use job::Job;
pub use margins::Margins;
pub use matched_noise::matched_noise;
pub use mk2::{Direction, Mk2, Mk2Drawing, Mk2Plan, Mk2Step};
pub use poor_mans::PoorMans;

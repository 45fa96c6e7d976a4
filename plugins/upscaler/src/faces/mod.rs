//! Faces in pictures: found, laid as networks know them, and put back. The order of work is that of facexlib's helper as A1111 calls
//! it (`modules/face_restoration_utils.py`); numbers are those of OpenCV, which it does this with.

pub mod align;
pub mod anchors;
pub mod blur;
pub mod laid;
pub mod lanczos;
#[cfg(test)]
mod tests;
pub mod warp;

use std::borrow::Cow;

/// A picture of three colours of 8 bits, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Colours<'a> {
    pub width: usize,
    pub height: usize,
    pub pixels: Cow<'a, [u8]>,
}

/// Numbers of one channel, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct Plane {
    pub width: usize,
    pub height: usize,
    pub values: Vec<f64>,
}

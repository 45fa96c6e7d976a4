//! Pictures turned, enlarged and moved, as OpenCV's `warpAffine` does it: places are rounded to a 32nd of a pixel, and colours of 8
//! bits weighed in whole numbers.

use std::ops::Range;

use super::align::{Matrix, inverse};
use super::{Colours, Plane};

/// Steps between pixels, and of what places are reckoned in.
const STEPS: i64 = 32;
const FINE: f64 = 1024.0;

/// What weights of whole numbers add up to.
const WHOLE: i32 = 1 << 15;

/// A place between pixels: the one on the left above, and how far it is beyond it, in steps.
#[derive(Clone, Copy)]
pub struct Place {
    x: i64,
    y: i64,
    right: i64,
    down: i64,
}

/// Where these pixels of a row of a result are taken from, by the way back.
pub fn places(back: &Matrix, row: usize, columns: Range<usize>) -> impl Iterator<Item = Place> {
    let [[a, b, x0], [c, d, y0]] = *back;
    // What is too far away is nowhere.
    let rounded = |value: f64| (value.round_ties_even() as i64).clamp(-(1 << 60), 1 << 60);
    let half = (FINE as i64 / STEPS) / 2;
    let (along, down) =
        (rounded((b * row as f64 + x0) * FINE) + half, rounded((d * row as f64 + y0) * FINE) + half);
    let shift = FINE as i64 / STEPS;
    columns.map(move |column| {
        let column = column as f64;
        let x = (along + rounded(a * column * FINE)).div_euclid(shift);
        let y = (down + rounded(c * column * FINE)).div_euclid(shift);
        Place {
            x: x.div_euclid(STEPS),
            y: y.div_euclid(STEPS),
            right: x.rem_euclid(STEPS),
            down: y.rem_euclid(STEPS),
        }
    })
}

/// A side's pixel, if it is inside.
fn inside(at: i64, size: usize) -> Option<usize> {
    usize::try_from(at).ok().filter(|at| *at < size)
}

/// What lies at a place of a picture; `beyond` is what there is outside.
pub fn colours_at(picture: &Colours<'_>, place: Place, beyond: [u8; 3]) -> [u8; 3] {
    let Place { x, y, right, down } = place;
    let at = |x: i64, y: i64| -> [u8; 3] {
        match (inside(x, picture.width), inside(y, picture.height)) {
            (Some(x), Some(y)) => {
                let start = (y * picture.width + x) * 3;
                [0, 1, 2].map(|colour| picture.pixels.get(start + colour).copied().unwrap_or_default())
            }
            _ => beyond,
        }
    };
    let corners = [at(x, y), at(x + 1, y), at(x, y + 1), at(x + 1, y + 1)];
    let (right, down) = (right as i32, down as i32);
    let steps = STEPS as i32;
    let weights =
        [(steps - right) * (steps - down), right * (steps - down), (steps - right) * down, right * down];
    [0, 1, 2].map(|colour: usize| {
        let part = |(corner, weight): (&[u8; 3], i32)| {
            let level = corner.get(colour).copied().unwrap_or_default();
            i32::from(level) * weight * (WHOLE / (steps * steps))
        };
        let sum: i32 = corners.iter().zip(weights).map(part).sum();
        ((sum + WHOLE / 2) / WHOLE) as u8
    })
}

/// The same of one channel; 0 outside.
pub fn value_at(plane: &Plane, place: Place) -> f64 {
    let Place { x, y, right, down } = place;
    let at = |x: i64, y: i64| -> f64 {
        match (inside(x, plane.width), inside(y, plane.height)) {
            (Some(x), Some(y)) => plane.values.get(y * plane.width + x).copied().unwrap_or_default(),
            _ => 0.0,
        }
    };
    let (right, down) = (right as f64 / STEPS as f64, down as f64 / STEPS as f64);
    let above = at(x, y) * (1.0 - right) * (1.0 - down) + at(x + 1, y) * right * (1.0 - down);
    above + at(x, y + 1) * (1.0 - right) * down + at(x + 1, y + 1) * right * down
}

/// A picture of this size of which `matrix` tells where its pixels come to lie; `beyond` is what there is outside.
pub fn warped(
    picture: &Colours<'_>,
    matrix: &Matrix,
    (width, height): (usize, usize),
    beyond: [u8; 3],
) -> Colours<'static> {
    let back = inverse(matrix);
    let rows = (0..height).flat_map(|row| places(&back, row, 0..width));
    let pixels: Vec<u8> = rows.flat_map(|place| colours_at(picture, place, beyond)).collect();
    Colours { width, height, pixels: pixels.into() }
}

//! Pictures turned, enlarged and moved, as OpenCV's `warpAffine` does it: places are rounded to a 32nd of a pixel, and colours of 8
//! bits weighed in whole numbers.

use super::align::{Matrix, inverse};
use super::{Colours, Plane};

/// Steps between pixels, and of what places are reckoned in.
const STEPS: i64 = 32;
const FINE: f64 = 1024.0;

/// What weights of whole numbers add up to.
const WHOLE: i32 = 1 << 15;

/// A place between pixels: the one on the left above, and how far it is beyond it, in steps.
struct Place {
    x: i64,
    y: i64,
    right: i64,
    down: i64,
}

/// Where each pixel of a row of a result is taken from, by the way back.
fn places(back: &Matrix, row: usize, width: usize) -> impl Iterator<Item = Place> {
    let [[a, b, x0], [c, d, y0]] = *back;
    let rounded = |value: f64| value.round_ties_even() as i64;
    let half = (FINE as i64 / STEPS) / 2;
    let (along, down) =
        (rounded((b * row as f64 + x0) * FINE) + half, rounded((d * row as f64 + y0) * FINE) + half);
    let shift = FINE as i64 / STEPS;
    (0..width).map(move |column| {
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

/// A picture of this size of which `matrix` tells where its pixels come to lie; `beyond` is what there is outside.
pub fn warped(
    picture: &Colours,
    matrix: &Matrix,
    (width, height): (usize, usize),
    beyond: [u8; 3],
) -> Colours {
    let back = inverse(matrix);
    let mut pixels = Vec::with_capacity(width * height * 3);
    let at = |x: i64, y: i64| -> [u8; 3] {
        let inside = |at: i64, size: usize| usize::try_from(at).ok().filter(|at| *at < size);
        match (inside(x, picture.width), inside(y, picture.height)) {
            (Some(x), Some(y)) => {
                let start = (y * picture.width + x) * 3;
                [0, 1, 2].map(|colour| picture.pixels.get(start + colour).copied().unwrap_or_default())
            }
            _ => beyond,
        }
    };
    for row in 0..height {
        for Place { x, y, right, down } in places(&back, row, width) {
            let corners = [at(x, y), at(x + 1, y), at(x, y + 1), at(x + 1, y + 1)];
            let (right, down) = (right as i32, down as i32);
            let steps = STEPS as i32;
            let weights = [
                (steps - right) * (steps - down),
                right * (steps - down),
                (steps - right) * down,
                right * down,
            ];
            for colour in 0..3 {
                let sum: i32 = corners
                    .iter()
                    .zip(weights)
                    .map(|(corner, weight)| i32::from(corner[colour]) * weight * (WHOLE / (steps * steps)))
                    .sum();
                pixels.push(((sum + WHOLE / 2) / WHOLE) as u8);
            }
        }
    }
    Colours { width, height, pixels }
}

/// The same of one channel; 0 outside.
pub fn warped_plane(plane: &Plane, matrix: &Matrix, (width, height): (usize, usize)) -> Plane {
    let back = inverse(matrix);
    let at = |x: i64, y: i64| -> f64 {
        let inside = |at: i64, size: usize| usize::try_from(at).ok().filter(|at| *at < size);
        match (inside(x, plane.width), inside(y, plane.height)) {
            (Some(x), Some(y)) => plane.values.get(y * plane.width + x).copied().unwrap_or_default(),
            _ => 0.0,
        }
    };
    let mut values = Vec::with_capacity(width * height);
    for row in 0..height {
        for Place { x, y, right, down } in places(&back, row, width) {
            let (right, down) = (right as f64 / STEPS as f64, down as f64 / STEPS as f64);
            let above = at(x, y) * (1.0 - right) * (1.0 - down) + at(x + 1, y) * right * (1.0 - down);
            values.push(above + at(x, y + 1) * (1.0 - right) * down + at(x + 1, y + 1) * right * down);
        }
    }
    Plane { width, height, values }
}

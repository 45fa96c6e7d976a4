//! A mask of a face, of what `ParseNet` says each pixel is.

use super::Plane;

/// Parts that are the restored face's: skin, brows, eyes, glasses, ears, earrings, nose, mouth, lips and hair's neighbour that is
/// not it. Not: what is behind, the hat, the necklace, the neck, the clothes, the hair.
const OF_FACE: [bool; 19] = [
    false, true, true, true, true, true, true, true, true, true, true, true, true, true, false, true, false,
    false, false,
];

/// The side of the blur's kernel, and its deviation.
const KERNEL: usize = 101;
const DEVIATION: f64 = 11.0;

/// Pixels along the border where nothing of the face is seen.
const BORDER: usize = 10;

/// How much of the restored face is seen at each pixel, 0…1: of `parts`, `(19, side, side)`, the largest counts.
pub fn mask(parts: &[f32], side: usize) -> Plane {
    let places = side * side;
    let of_face = |place: usize| {
        let part = |part: usize| parts.get(part * places + place).copied().unwrap_or(f32::NEG_INFINITY);
        let mut largest = 0;
        for other in 1..OF_FACE.len() {
            if part(other) > part(largest) {
                largest = other;
            }
        }
        if OF_FACE.get(largest).copied().unwrap_or_default() { 255.0 } else { 0.0 }
    };
    let sharp = Plane { width: side, height: side, values: (0..places).map(of_face).collect() };
    let kernel = kernel();
    let mut mask = blurred(&blurred(&sharp, &kernel), &kernel);
    for (place, value) in mask.values.iter_mut().enumerate() {
        let is_inside = |at: usize| (BORDER..side.saturating_sub(BORDER)).contains(&at);
        *value = if is_inside(place / side) && is_inside(place % side) { *value / 255.0 } else { 0.0 };
    }
    mask
}

/// Weights of pixels so far away, which add up to 1.
fn kernel() -> Vec<f64> {
    let middle = (KERNEL / 2) as f64;
    let weight = |at: usize| (-0.5 * ((at as f64 - middle) / DEVIATION).powi(2)).exp();
    let weights: Vec<f64> = (0..KERNEL).map(weight).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

/// Both ways; what lies beyond the border is as in a mirror that stands on the outermost pixels.
fn blurred(plane: &Plane, kernel: &[f64]) -> Plane {
    let across = blurred_rows(plane, kernel);
    turned(&blurred_rows(&turned(&across), kernel))
}

fn turned(plane: &Plane) -> Plane {
    let Plane { width, height, values } = plane;
    let value = |at: usize| values.get(at % height * width + at / height).copied().unwrap_or_default();
    Plane { width: *height, height: *width, values: (0..values.len()).map(value).collect() }
}

fn blurred_rows(plane: &Plane, kernel: &[f64]) -> Plane {
    let width = plane.width;
    let half = (kernel.len() / 2) as i64;
    let last = width as i64 - 1;
    let mirrored = |at: i64| {
        let mut at = at;
        while at < 0 || at > last {
            at = if at < 0 { -at } else { 2 * last - at };
        }
        at as usize
    };
    if last < 1 {
        return plane.clone();
    }
    let mut values = Vec::with_capacity(plane.values.len());
    for row in plane.values.chunks_exact(width) {
        let filled: Vec<f64> =
            (-half..=last + half).map(|at| row.get(mirrored(at)).copied().unwrap_or_default()).collect();
        values.extend(
            filled
                .windows(kernel.len())
                .map(|window| window.iter().zip(kernel).map(|(value, weight)| value * weight).sum::<f64>()),
        );
    }
    Plane { values, ..*plane }
}

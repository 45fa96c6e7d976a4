//! Pictures in another size: by OpenCV's `INTER_LANCZOS4`, whose eight taps stay as wide however much smaller a picture becomes, and
//! by its `INTER_LINEAR`.

use std::collections::VecDeque;

use super::{Colours, Plane};

/// Taps of a pixel, and of those the ones before it.
const TAPS: usize = 8;
const BEFORE: i64 = 3;

/// What weights of whole numbers add up to.
const WHOLE: f32 = 2048.0;

/// Cosines and sines of eighths of a turn by which the taps follow one another.
const HALF: f64 = std::f64::consts::FRAC_1_SQRT_2;
const TURNS: [[f64; 2]; TAPS] =
    [[1., 0.], [-HALF, -HALF], [0., 1.], [HALF, -HALF], [-1., 0.], [HALF, HALF], [0., -1.], [-HALF, HALF]];

/// Weights for a place so far beyond a pixel, in whole numbers.
fn weights(beyond: f32) -> [i32; TAPS] {
    let mut weights = [0.0_f32; TAPS];
    if beyond < f32::EPSILON {
        weights[3] = 1.0;
    } else {
        let start = -(f64::from(beyond) + 3.0) * std::f64::consts::FRAC_PI_4;
        let (sine, cosine) = (start.sin(), start.cos());
        let mut sum = 0.0_f32;
        for (tap, (weight, turn)) in weights.iter_mut().zip(TURNS).enumerate() {
            let place = -(f64::from(beyond + 3.0) - tap as f64) * std::f64::consts::FRAC_PI_4;
            *weight = ((turn[0] * sine + turn[1] * cosine) / (place * place)) as f32;
            sum += *weight;
        }
        let share = 1.0 / sum;
        for weight in &mut weights {
            *weight *= share;
        }
    }
    weights.map(|weight| (weight * WHOLE).round_ties_even() as i32)
}

/// Of each place of a side: the pixel before it and the weights of those around.
fn taps(from: usize, to: usize) -> Vec<(i64, [i32; TAPS])> {
    let scale = from as f64 / to as f64;
    let tap = |at: usize| {
        let place = ((at as f64 + 0.5) * scale - 0.5) as f32;
        let before = place.floor();
        (before as i64, weights(place - before))
    };
    (0..to).map(tap).collect()
}

/// By Lanczos. Rows are brought to the width as they are needed, and kept as long as they are.
pub fn lanczos<'a>(picture: &Colours<'a>, (width, height): (usize, usize)) -> Colours<'a> {
    if (width, height) == (picture.width, picture.height) {
        return picture.clone();
    }
    let clamped = |at: i64, size: usize| at.clamp(0, size as i64 - 1) as usize;
    let (across, down) = (taps(picture.width, width), taps(picture.height, height));
    let brought = |row: usize| {
        let mut line = vec![0_i32; width * 3];
        for (pixel, (before, weights)) in line.chunks_exact_mut(3).zip(&across) {
            for (tap, weight) in weights.iter().enumerate() {
                let x = clamped(before - BEFORE + tap as i64, picture.width);
                let start = (row * picture.width + x) * 3;
                for (sum, value) in
                    pixel.iter_mut().zip(picture.pixels.get(start..start + 3).unwrap_or_default())
                {
                    *sum += i32::from(*value) * weight;
                }
            }
        }
        line
    };
    let mut pixels = Vec::with_capacity(width * height * 3);
    // The rows from `first` on.
    let (mut first, mut rows) = (0, VecDeque::new());
    for (before, weights) in &down {
        let row = |tap: usize| clamped(before - BEFORE + tap as i64, picture.height);
        while first < row(0) && rows.pop_front().is_some() {
            first += 1;
        }
        if rows.is_empty() {
            first = row(0);
        }
        while first + rows.len() <= row(TAPS - 1) {
            rows.push_back(brought(first + rows.len()));
        }
        for at in 0..width * 3 {
            let term = |(tap, weight): (usize, &i32)| {
                let line = rows.get(row(tap) - first);
                line.and_then(|line| line.get(at)).copied().unwrap_or_default().wrapping_mul(*weight)
            };
            let sum = weights.iter().enumerate().map(term).fold(0_i32, i32::wrapping_add);
            pixels.push(((sum.wrapping_add(1 << 21)) >> 22).clamp(0, 255) as u8);
        }
    }
    Colours { width, height, pixels: pixels.into() }
}

/// Where each place of a side lies: two pixels, and how far it is from the first.
fn between(from: usize, to: usize) -> Vec<(usize, usize, f64)> {
    let scale = from as f64 / to as f64;
    let place = |at: usize| {
        let place = ((at as f64 + 0.5) * scale - 0.5).clamp(0.0, from as f64 - 1.0);
        let before = place.floor();
        (before as usize, (before as usize + 1).min(from - 1), place - before)
    };
    (0..to).map(place).collect()
}

/// By what lies between four pixels.
pub fn linear(plane: &Plane, (width, height): (usize, usize)) -> Plane {
    if (width, height) == (plane.width, plane.height) {
        return plane.clone();
    }
    let (across, down) = (between(plane.width, width), between(plane.height, height));
    let at = |x: usize, y: usize| plane.values.get(y * plane.width + x).copied().unwrap_or_default();
    let mut values = Vec::with_capacity(width * height);
    for (above, below, lower) in &down {
        for (left, right, further) in &across {
            let row = |y: usize| at(*left, y) * (1.0 - further) + at(*right, y) * further;
            values.push(row(*above) * (1.0 - lower) + row(*below) * lower);
        }
    }
    Plane { width, height, values }
}

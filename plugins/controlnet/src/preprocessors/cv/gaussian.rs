//! Gaussian blurs. What lies beyond an edge is mirrored at the pixel on it.

use super::{Grid, fused};

/// One, in weights of whole numbers.
const ONE: i64 = 1 << 8;

/// A picture of bytes, blurred in whole numbers: the same bytes on every machine. `sigma` in pixels, above 0.
pub fn of_bytes(from: &Grid<u8>, sigma: f64) -> Grid<u8> {
    let (width, height, channels) = (from.width, from.height, from.channels);
    let size = (sigma * 6.0 + 1.0).round_ties_even() as usize | 1;
    let across = whole_weights(if width == 1 { 1 } else { size }, sigma);
    let down = whole_weights(if height == 1 { 1 } else { size }, sigma);
    let mut rows = Grid::<f32>::new(width, height, channels);
    let mut wide = vec![];
    let mut row = vec![0_u16; width * channels];
    for y in 0..height {
        mirrored_row(from.row(y), channels, across.len() / 2, &mut wide);
        let middle = across.len() / 2;
        for (to, value) in row.iter_mut().zip(&wide[middle * channels..]) {
            *to = u16::from(*value) * across[middle];
        }
        for tap in (0..middle).filter(|tap| across[*tap] != 0) {
            let (left, right) = (&wide[tap * channels..], &wide[(across.len() - 1 - tap) * channels..]);
            for ((to, left), right) in row.iter_mut().zip(left).zip(right) {
                *to += (u16::from(*left) + u16::from(*right)) * across[tap];
            }
        }
        rows.row_mut(y).iter_mut().zip(&row).for_each(|(to, value)| *to = f32::from(*value));
    }
    let mut to = Grid::new(width, height, channels);
    let mut sums = vec![0.0; width * channels];
    let middle = down.len() / 2;
    for y in 0..height {
        // What is added up is whole and below 2²⁴, so that floats are exact.
        for (sum, value) in sums.iter_mut().zip(rows.row(y)) {
            *sum = value * f32::from(down[middle]);
        }
        for tap in (1..=middle).filter(|tap| down[middle + tap] != 0) {
            let weight = f32::from(down[middle + tap]);
            let above = rows.row(mirrored(y as i64 - tap as i64, height));
            let below = rows.row(mirrored((y + tap) as i64, height));
            for ((sum, above), below) in sums.iter_mut().zip(above).zip(below) {
                *sum += (above + below) * weight;
            }
        }
        for (to, sum) in to.row_mut(y).iter_mut().zip(&sums) {
            *to = ((*sum as u32 + (1 << 15)) >> 16) as u8;
        }
    }
    to
}

/// Floats, blurred; `sigma` in pixels, above 0. Each step is a fused multiplication, in the order of the reference.
pub fn of_floats(from: &Grid<f32>, sigma: f64) -> Grid<f32> {
    let (width, height, channels) = (from.width, from.height, from.channels);
    let size = (sigma * 8.0 + 1.0).round_ties_even() as usize | 1;
    let weights = |side: usize| -> Vec<f32> {
        weights(if side == 1 { 1 } else { size }, sigma).into_iter().map(|weight| weight as f32).collect()
    };
    let (across, down) = (weights(width), weights(height));
    let mut rows = Grid::<f32>::new(width, height, channels);
    let mut wide = vec![];
    for y in 0..height {
        mirrored_row(from.row(y), channels, across.len() / 2, &mut wide);
        let at = |tap: usize| &wide[tap * channels..];
        let row = rows.row_mut(y);
        if across.len() == 5 {
            let taps = at(0).iter().zip(at(1)).zip(at(2)).zip(at(3)).zip(at(4));
            for (to, ((((far, near), middle), after), last)) in row.iter_mut().zip(taps) {
                let sum = fused(*middle, across[2], (near + after) * across[3]);
                *to = fused(last + far, across[4], sum);
            }
            continue;
        }
        for (to, value) in row.iter_mut().zip(&wide) {
            *to = value * across[0];
        }
        for (tap, weight) in across.iter().enumerate().skip(1) {
            for (to, value) in row.iter_mut().zip(at(tap)) {
                *to = fused(*value, *weight, *to);
            }
        }
    }
    let mut to = Grid::new(width, height, channels);
    let middle = down.len() / 2;
    for y in 0..height {
        let row = to.row_mut(y);
        for (to, value) in row.iter_mut().zip(rows.row(y)) {
            *to = value * down[middle];
        }
        for tap in 1..=middle {
            let above = rows.row(mirrored(y as i64 - tap as i64, height));
            let below = rows.row(mirrored((y + tap) as i64, height));
            for ((to, above), below) in row.iter_mut().zip(above).zip(below) {
                *to = fused(below + above, down[middle + tap], *to);
            }
        }
    }
    to
}

/// A row with `margin` more pixels at both ends.
fn mirrored_row<T: Copy>(row: &[T], channels: usize, margin: usize, wide: &mut Vec<T>) {
    let width = row.len() / channels;
    let pixel = |x: i64| {
        let x = mirrored(x, width) * channels;
        row[x..x + channels].iter().copied()
    };
    wide.clear();
    wide.extend((-(margin as i64)..0).flat_map(pixel));
    wide.extend_from_slice(row);
    wide.extend((width as i64..(width + margin) as i64).flat_map(pixel));
}

/// The place within `size` at which one beyond it is mirrored, as often as need be.
fn mirrored(place: i64, size: usize) -> usize {
    let size = size as i64;
    if size == 1 {
        return 0;
    }
    let place = place.rem_euclid(2 * size - 2);
    place.min(2 * size - 2 - place) as usize
}

/// The bell's values, whose sum is one.
fn weights(size: usize, sigma: f64) -> Vec<f64> {
    let scale = -0.125 / (sigma * sigma);
    let half: Vec<f64> = (0..size / 2)
        .map(|tap| (size as f64 - 1.0 - 2.0 * tap as f64).powi(2))
        .map(|x| (x * scale).exp())
        .collect();
    let sum = half.iter().sum::<f64>() * 2.0 + 1.0;
    let one = 1.0 / sum;
    half.iter().chain([&1.0]).chain(half.iter().rev()).map(|value| value * one).collect()
}

/// The same in 256ths: what rounding takes from one goes to the next, and the rest to the middle.
fn whole_weights(size: usize, sigma: f64) -> Vec<u16> {
    let exact = weights(size, sigma);
    let mut left = 0.0;
    let mut half = vec![];
    for weight in &exact[..size / 2] {
        let wanted = weight * ONE as f64 + left;
        let whole = wanted.round_ties_even();
        left = wanted - whole;
        half.push(whole as u16);
    }
    let middle = ONE as u16 - 2 * half.iter().sum::<u16>();
    half.iter().copied().chain([middle]).chain(half.iter().rev().copied()).collect()
}

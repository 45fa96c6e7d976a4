//! Planes with a border, moved, and blurred.

use super::op::Border;
use super::room::{Failed, lines};

/// Height and width of a plane.
pub(super) type Size = (usize, usize);

/// What is put around: left, right, top, bottom.
pub(super) type Margins = [usize; 4];

/// Pixels that a Gaussian may be of, an odd count.
const LONGEST_KERNEL: usize = 8191;

/// Where a place beyond a side of `size` is taken from, reflected about the outermost pixels as often as it takes.
fn reflected(place: isize, size: usize) -> usize {
    if size == 1 {
        return 0;
    }
    let period = 2 * (size as isize - 1);
    let within = place.rem_euclid(period);
    within.min(period - within) as usize
}

/// `(planes, height, width)` → the same with a border.
pub(super) fn pad(
    values: &[f32],
    (height, width): Size,
    [left, right, top, bottom]: Margins,
    border: Border,
) -> Result<Vec<f32>, Failed> {
    let (rows, columns) = (height + top + bottom, width + left + right);
    let planes = values.len() / (height * width);
    let place = |place: usize, before: usize, size: usize| -> Option<usize> {
        let place = place as isize - before as isize;
        match border {
            Border::Constant(_) => usize::try_from(place).ok().filter(|place| *place < size),
            Border::Edge => Some(place.clamp(0, size as isize - 1) as usize),
            Border::Reflect => Some(reflected(place, size)),
        }
    };
    let outside = if let Border::Constant(value) = border { value } else { 0.0 };
    lines(planes * rows, columns, |line, made: &mut [f32]| {
        let (plane, row) = (line / rows, line % rows);
        let from = place(row, top, height).map(|row| &values[(plane * height + row) * width..][..width]);
        for (column, made) in made.iter_mut().enumerate() {
            *made = from.zip(place(column, left, width)).map_or(outside, |(from, column)| from[column]);
        }
    })
}

/// `(planes, height, width)` → `(planes, rows, columns)`, each pixel from where the matrix says.
pub(super) fn warp(
    values: &[f32],
    (height, width): Size,
    (rows, columns): Size,
    matrix: [f64; 6],
    outside: f32,
) -> Result<Vec<f32>, Failed> {
    let planes = values.len() / (height * width);
    lines(planes * rows, columns, |line, made: &mut [f32]| {
        let (plane, row) = (line / rows, (line % rows) as f64);
        let plane = &values[plane * height * width..][..height * width];
        for (column, made) in made.iter_mut().enumerate() {
            let column = column as f64;
            let x = matrix[0] * column + matrix[1] * row + matrix[2];
            let y = matrix[3] * column + matrix[4] * row + matrix[5];
            // What is NaN lies nowhere.
            let is_near = x > -1.0 && y > -1.0 && x < width as f64 && y < height as f64;
            *made = if is_near { around(plane, (height, width), (x, y), outside) } else { outside };
        }
    })
}

/// Of the four pixels around a point.
fn around(plane: &[f32], (height, width): Size, (x, y): (f64, f64), outside: f32) -> f32 {
    let (left, top) = (x.floor(), y.floor());
    let (to_right, down) = ((x - left) as f32, (y - top) as f32);
    let at = |column: f64, row: f64| {
        let is_within = column >= 0.0 && row >= 0.0 && column < width as f64 && row < height as f64;
        if is_within { plane[row as usize * width + column as usize] } else { outside }
    };
    let between = |row: f64| at(left, row) * (1.0 - to_right) + at(left + 1.0, row) * to_right;
    between(top) * (1.0 - down) + between(top + 1.0) * down
}

/// How many pixels a Gaussian is of; an error if none can be.
pub(super) fn kernel_size(sigma: f64, size: usize) -> Result<usize, String> {
    if !(sigma >= 0.0 && sigma.is_finite()) {
        return Err(format!("no Gaussian has the sigma {sigma}"));
    }
    if sigma == 0.0 {
        let text = format!("{size} pixels of a sigma of 0; give a sigma, or 0 pixels");
        return if size <= 1 { Ok(1) } else { Err(text) };
    }
    // As OpenCV has it for floats.
    let wanted = if size == 0 { (sigma * 8.0 + 1.0).round_ties_even() as usize | 1 } else { size };
    match wanted {
        even if even % 2 == 0 => Err(format!("a Gaussian of {even} pixels; an odd count has a middle")),
        long if long > LONGEST_KERNEL => {
            Err(format!("a Gaussian of {long} pixels; {LONGEST_KERNEL} are possible: make it smaller first"))
        }
        wanted => Ok(wanted),
    }
}

fn kernel(sigma: f64, size: usize) -> Vec<f32> {
    if size == 1 {
        return vec![1.0];
    }
    let middle = (size - 1) as f64 / 2.0;
    let weight = |place: usize| (-(place as f64 - middle).powi(2) / (2.0 * sigma * sigma)).exp();
    let sum: f64 = (0..size).map(weight).sum();
    (0..size).map(|place| (weight(place) / sum) as f32).collect()
}

/// Bytes that are taken beside the result.
pub(super) fn blur_bytes(count: usize, sizes: [usize; 2]) -> u64 {
    4 * (count as u64 + sizes[0] as u64 + sizes[1] as u64)
}

/// `(planes, height, width)` under a Gaussian, of sigmas and [sizes](kernel_size) in x and y.
pub(super) fn blur(
    values: &[f32],
    (height, width): Size,
    sigmas: [f64; 2],
    sizes: [usize; 2],
) -> Result<Vec<f32>, Failed> {
    let (across, down) = (kernel(sigmas[0], sizes[0]), kernel(sigmas[1], sizes[1]));
    let planes = values.len() / (height * width);
    let from = |place: usize, tap: usize, taps: usize, size: usize| {
        reflected(place as isize + tap as isize - (taps / 2) as isize, size)
    };
    let between = lines(planes * height, width, |line, made: &mut [f32]| {
        let row = &values[line * width..][..width];
        for (column, made) in made.iter_mut().enumerate() {
            for (tap, weight) in across.iter().enumerate() {
                *made += row[from(column, tap, across.len(), width)] * weight;
            }
        }
    })?;
    lines(planes * height, width, |line, made: &mut [f32]| {
        let (plane, row) = (line / height, line % height);
        for (tap, weight) in down.iter().enumerate() {
            let row = plane * height + from(row, tap, down.len(), height);
            for (sum, value) in made.iter_mut().zip(&between[row * width..][..width]) {
                *sum += value * weight;
            }
        }
    })
}

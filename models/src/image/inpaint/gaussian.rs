//! OpenCV's Gaussian blur of 8-bit pictures (`GaussianBlur`; `imgproc/src/smooth.dispatch.cpp` has the kernel): weights in
//! 256ths whose rounding errors are handed on, so that they sum to 256 and the result has one rounding only.

/// Weights of a blur that add up to 256, so no more than 256 of them are not 0.
pub(super) struct Kernel {
    /// Of the middle.
    middle: u16,
    /// `(distance, weight)` of pixels on either side, where it is not 0.
    sides: Vec<(usize, u16)>,
    /// How many pixels there are on either side, counting those without weight.
    reach: usize,
}

impl Kernel {
    /// For a finite sigma above 0.
    pub(super) fn new(sigma: f64) -> Self {
        let reach = (2.5 * sigma + 0.5) as usize;
        let falloff = -0.125 / (sigma * sigma);
        let height = |distance: usize| ((4 * distance * distance) as f64 * falloff).exp();
        let heights: Vec<f64> = (1..=reach).rev().map(height).collect();
        let sum = heights.iter().sum::<f64>() * 2.0 + 1.0;
        let (mut error, mut given) = (0.0, 0);
        let mut sides = Vec::new();
        for (index, height) in heights.iter().enumerate() {
            let exact = height * (1.0 / sum) * 256.0 + error;
            let weight = exact.round_ties_even();
            error = exact - weight;
            if weight > 0.0 {
                sides.push((reach - index, weight as u16));
                given += 2 * weight as u16;
            }
        }
        Self { middle: 256 - given, sides, reach }
    }
}

/// Blurs rows of `width` values. Beyond an edge the row is mirrored, the outermost value not repeated.
pub(super) fn along_rows(values: &mut [u8], width: usize, kernel: &Kernel) {
    let mut padded = Vec::with_capacity(width + 2 * kernel.reach);
    for row in values.chunks_exact_mut(width) {
        padded.clear();
        let outside = |place: isize| u16::from(row[mirrored(place, width)]);
        padded.extend((-(kernel.reach as isize)..0).map(outside));
        padded.extend(row.iter().map(|value| u16::from(*value)));
        let end = width as isize;
        padded.extend((end..end + kernel.reach as isize).map(outside));
        blur_row(row, &padded, kernel);
    }
}

/// Most of a mask is one value far and wide, which a blur does not change: only what is near an edge is worked out.
fn blur_row(row: &mut [u8], padded: &[u16], kernel: &Kernel) {
    let mut at = 0;
    while at < row.len() {
        let all = 2 * kernel.reach + 1;
        // As long as everything in reach is the same.
        let same = run(&padded[at..]);
        if same >= all {
            at += same - all + 1;
            continue;
        }
        // What is in reach of the next change needs work, up to where it is the same again for long enough.
        let end = (at + BLOCK).min(row.len());
        blur_block(&mut row[at..end], &padded[at..end + 2 * kernel.reach], kernel);
        at = end;
    }
}

const BLOCK: usize = 64;

fn blur_block(block: &mut [u8], padded: &[u16], kernel: &Kernel) {
    let mut sums = [128u16; BLOCK];
    let length = block.len();
    let sums = &mut sums[..length];
    let from = |start: usize| &padded[start..start + length];
    for (sum, value) in sums.iter_mut().zip(from(kernel.reach)) {
        *sum += *value * kernel.middle;
    }
    for (distance, weight) in &kernel.sides {
        let both = from(kernel.reach - distance).iter().zip(from(kernel.reach + distance));
        for (sum, (before, after)) in sums.iter_mut().zip(both) {
            *sum += (*before + *after) * weight;
        }
    }
    for (value, sum) in block.iter_mut().zip(sums) {
        *value = (*sum >> 8) as u8;
    }
}

/// How many values from the first on are the same.
fn run(values: &[u16]) -> usize {
    let first = values.first().copied().unwrap_or_default();
    values.iter().position(|value| *value != first).unwrap_or(values.len())
}

/// The place in a row of this width that stands for one outside of it.
fn mirrored(place: isize, width: usize) -> usize {
    if width == 1 {
        return 0;
    }
    let last = width as isize - 1;
    let place = place.rem_euclid(2 * last);
    (if place > last { 2 * last - place } else { place }) as usize
}

/// Rows for columns.
pub(super) fn transposed(values: &[u8], width: usize) -> Vec<u8> {
    const TILE: usize = 64;
    let height = values.len() / width;
    let mut turned = vec![0; values.len()];
    for top in (0..height).step_by(TILE) {
        for left in (0..width).step_by(TILE) {
            for x in left..(left + TILE).min(width) {
                for y in top..(top + TILE).min(height) {
                    turned[x * height + y] = values[y * width + x];
                }
            }
        }
    }
    turned
}

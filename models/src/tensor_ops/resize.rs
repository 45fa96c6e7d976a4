//! Planes at another size: first along rows, then along columns, each place of places of the other side by their shares.

use std::f64::consts::PI;

use super::op::Resampling;
use super::room::{Failed, lines};
use crate::image::{Axis, LatentFilter};

impl Resampling {
    /// Of a side of `from` places, one of `to`.
    fn axis(self, from: usize, to: usize) -> Axis {
        match self {
            Self::Nearest => LatentFilter::Nearest.axis(from, to),
            Self::Bilinear => LatentFilter::Bilinear.axis(from, to),
            Self::Bicubic => LatentFilter::Bicubic.axis(from, to),
            Self::Area => (0..to).map(|place| area(from, to, place)).collect(),
            Self::Lanczos => (0..to).map(|place| lanczos(from, to, place)).collect(),
        }
    }

    /// Bytes that an axis takes, at most.
    fn axis_bytes(self, from: usize, to: usize) -> u64 {
        let within = from.div_ceil(to);
        let places = match self {
            Self::Nearest => 1,
            Self::Bilinear => 2,
            Self::Bicubic => 4,
            Self::Area => within + 2,
            Self::Lanczos => 6 * within + 2,
        };
        let each = size_of::<Vec<(usize, f32)>>() + places * size_of::<(usize, f32)>();
        (each as u64).saturating_mul(to as u64)
    }
}

/// Bytes that are taken beside the result.
pub(super) fn resize_bytes(
    planes: usize,
    from: (usize, usize),
    to: (usize, usize),
    filter: Resampling,
) -> u64 {
    let between = (planes as u64).saturating_mul(from.0 as u64).saturating_mul(to.1 as u64);
    let axes = filter.axis_bytes(from.0, to.0).saturating_add(filter.axis_bytes(from.1, to.1));
    // Lanczos' shares are of f64 while they are made.
    let making = 16 * (12 * from.0.max(from.1) as u64 + 64);
    between.saturating_mul(4).saturating_add(axes).saturating_add(making)
}

/// `(planes, height, width)` → `(planes, rows, columns)`.
pub(super) fn resize(
    values: &[f32],
    (height, width): (usize, usize),
    (rows, columns): (usize, usize),
    filter: Resampling,
) -> Result<Vec<f32>, Failed> {
    let (down, across) = (filter.axis(height, rows), filter.axis(width, columns));
    let planes = values.len() / (height * width);
    let between = lines(planes * height, columns, |line, made: &mut [f32]| {
        let row = &values[line * width..][..width];
        for (made, places) in made.iter_mut().zip(&across) {
            *made = places.iter().map(|(place, share)| row[*place] * share).sum();
        }
    })?;
    lines(planes * rows, columns, |line, made: &mut [f32]| {
        let (plane, row) = (line / rows, line % rows);
        for (place, share) in &down[row] {
            let from = &between[(plane * height + place) * columns..][..columns];
            for (sum, value) in made.iter_mut().zip(from) {
                *sum += share * value;
            }
        }
    })
}

/// All places that lie within, in equal shares.
fn area(from: usize, to: usize, place: usize) -> Vec<(usize, f32)> {
    let scaled = |place: usize| place as u128 * from as u128;
    let (first, end) =
        ((scaled(place) / to as u128) as usize, scaled(place + 1).div_ceil(to as u128) as usize);
    (first..end).map(|at| (at, 1.0 / (end - first) as f32)).collect()
}

/// As `precompute_coeffs` of Pillow's `Resample.c` has them.
fn lanczos(from: usize, to: usize, place: usize) -> Vec<(usize, f32)> {
    let scale = from as f64 / to as f64;
    let coarser = scale.max(1.0);
    let (support, middle) = (3.0 * coarser, (place as f64 + 0.5) * scale);
    // From floats to whole numbers everything below 0 becomes 0.
    let first = (middle - support + 0.5) as usize;
    let end = ((middle + support + 0.5) as usize).min(from);
    let sinc = |x: f64| if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) };
    let share = |at: usize| {
        let x = (at as f64 - middle + 0.5) / coarser;
        if (-3.0..3.0).contains(&x) { sinc(x) * sinc(x / 3.0) } else { 0.0 }
    };
    let sum: f64 = (first..end).map(share).sum();
    (first..end).map(|at| (at, (share(at) / sum) as f32)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::resize_latents;
    use crate::tensor::Tensor;

    #[test]
    fn filters_that_latents_have_make_the_same_numbers() {
        let values: Vec<f32> = (0..2 * 3 * 7 * 9).map(|index| (index as f32 * 0.71).sin()).collect();
        let latents = Tensor::new(values, [2, 3, 7, 9]).expect("fits");
        for (filter, same) in [
            (Resampling::Nearest, LatentFilter::Nearest),
            (Resampling::Bilinear, LatentFilter::Bilinear),
            (Resampling::Bicubic, LatentFilter::Bicubic),
        ] {
            for (rows, columns) in [(1, 1), (14, 5), (3, 20), (7, 1)] {
                let made = resize(latents.values(), (7, 9), (rows, columns), filter).expect("made");
                let wanted = resize_latents(&latents, rows, columns, same).expect("made");
                assert_eq!(made, wanted.values(), "{filter:?} to {rows}x{columns}");
            }
        }
    }

    #[test]
    fn an_axis_takes_no_more_than_is_said() {
        let all = [
            Resampling::Nearest,
            Resampling::Bilinear,
            Resampling::Bicubic,
            Resampling::Area,
            Resampling::Lanczos,
        ];
        for filter in all {
            for (from, to) in [(1, 1), (1, 90), (64, 1), (100, 7), (7, 100), (3, 2), (1000, 999)] {
                let axis = filter.axis(from, to);
                let taken: usize =
                    axis.iter().map(|places| 24 + places.capacity() * size_of::<(usize, f32)>()).sum();
                assert!(taken as u64 <= filter.axis_bytes(from, to), "{filter:?} {from} to {to}");
            }
        }
    }
}

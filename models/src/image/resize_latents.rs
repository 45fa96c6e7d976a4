//! Numbers at another size, as `torch.nn.functional.interpolate` makes them (corners not aligned): what A1111's latent upscalers
//! do. Pictures of 8 bits are [`super::Picture::resized`]'s.
//!
//! Places are reckoned in f32 as torch does: in f64 the shares of neighbours far from the border would differ by more than the
//! numbers' own rounding.

use crate::tensor::Tensor;
use crate::{Error, Result};

/// How latents of another size are made from those around them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LatentFilter {
    /// Of the two nearest of each side.
    Bilinear,
    /// The same, but as wide as what comes out if that is coarser.
    BilinearAntialiased,
    /// Of the four nearest of each side: Keys' cubic with a = −0.75.
    Bicubic,
    /// Keys' cubic with a = −0.5, as wide as what comes out if that is coarser.
    BicubicAntialiased,
    /// The one that begins where this one does.
    Nearest,
    /// The one whose middle is nearest.
    NearestExact,
}

/// What each place of a side is made of: places of the other side and their shares.
pub(crate) type Axis = Vec<Vec<(usize, f32)>>;

impl LatentFilter {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Bilinear,
        Self::BilinearAntialiased,
        Self::Bicubic,
        Self::BicubicAntialiased,
        Self::Nearest,
        Self::NearestExact,
    ];

    /// Of a side of `from` places, one of `to`.
    pub(crate) fn axis(self, from: usize, to: usize) -> Axis {
        let scale = from as f32 / to as f32;
        let last = from.saturating_sub(1);
        let middle = |place: usize| scale * (place as f32 + 0.5);
        let one = |at: f32| vec![((at as usize).min(last), 1.0)];
        let of_place = |place: usize| match self {
            Self::Nearest => one(scale * place as f32),
            Self::NearestExact => one(middle(place)),
            Self::Bilinear => {
                let at = (middle(place) - 0.5).max(0.0);
                let first = (at as usize).min(last);
                let share = (at - first as f32).clamp(0.0, 1.0);
                vec![(first, 1.0 - share), ((first + 1).min(last), share)]
            }
            Self::Bicubic => {
                let at = middle(place) - 0.5;
                let share = at - at.floor();
                let taps = [-1, 0, 1, 2].map(|tap| {
                    let tap_at = (at.floor() as isize + tap).clamp(0, last as isize);
                    (tap_at as usize, cubic(share - tap as f32, -0.75))
                });
                taps.to_vec()
            }
            Self::BilinearAntialiased => wide(from, scale, middle(place), 1.0, |x| (1.0 - x.abs()).max(0.0)),
            Self::BicubicAntialiased => wide(from, scale, middle(place), 2.0, |x| cubic(x, -0.5)),
        };
        (0..to).map(of_place).collect()
    }
}

/// Shares of all within `support`, which grows where what comes out is coarser; together 1.
fn wide(
    from: usize,
    scale: f32,
    middle: f32,
    support: f32,
    filter: impl Fn(f32) -> f32,
) -> Vec<(usize, f32)> {
    let coarser = scale.max(1.0);
    let support = support * coarser;
    // From floats to whole numbers everything below 0 becomes 0.
    let first = (middle - support + 0.5) as usize;
    let end = ((middle + support + 0.5) as usize).min(from);
    let share = |place: usize| filter((place as f32 - middle + 0.5) * (1.0 / coarser));
    let shares: Vec<(usize, f32)> = (first..end).map(|place| (place, share(place))).collect();
    let sum: f32 = shares.iter().map(|(_, share)| share).sum();
    shares.into_iter().map(|(place, share)| (place, if sum == 0.0 { share } else { share / sum })).collect()
}

/// Keys' cubic at a distance.
fn cubic(x: f32, a: f32) -> f32 {
    let x = x.abs();
    if x <= 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    } else {
        0.0
    }
}

/// `(batch, channels, height, width)` → `(batch, channels, rows, columns)`.
///
/// # Errors
/// If one of both has no places, or so many that they cannot be counted.
pub fn resize_latents(latents: &Tensor, rows: usize, columns: usize, filter: LatentFilter) -> Result<Tensor> {
    let (batch, channels, height, width) = latents.dims4()?;
    let planes = batch * channels;
    let between = height.checked_mul(columns).and_then(|plane| plane.checked_mul(planes));
    let after = rows.checked_mul(columns).and_then(|plane| plane.checked_mul(planes));
    let (Some(1..), Some(1..)) = (between, after) else {
        let text = format!("latents {:?} cannot become {rows}x{columns}", latents.dims());
        return Err(Error::Compute(text));
    };
    if (rows, columns) == (height, width) {
        return Ok(latents.clone());
    }
    let (across, down) = (filter.axis(width, columns), filter.axis(height, rows));
    let mut made = Vec::with_capacity(planes * rows * columns);
    for plane in latents.values().chunks_exact(height * width) {
        let narrow: Vec<f32> = plane.chunks_exact(width).flat_map(|row| along(row, &across)).collect();
        for taps in &down {
            let begin = made.len();
            made.resize(begin + columns, 0.0);
            for (row, share) in taps {
                let row = &narrow[row * columns..][..columns];
                for (sum, value) in made[begin..].iter_mut().zip(row) {
                    *sum += share * value;
                }
            }
        }
    }
    Tensor::new(made, [batch, channels, rows, columns])
}

fn along<'a>(row: &'a [f32], axis: &'a Axis) -> impl Iterator<Item = f32> + 'a {
    axis.iter().map(|taps| taps.iter().map(|(place, share)| row[*place] * share).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_stays_it_at_any_size() {
        for (rows, columns) in [(1, 1), (1, 9), (7, 2), (64, 33)] {
            for (to_rows, to_columns) in [(1, 1), (3, 2), (100, 1), (9, 90)] {
                for filter in LatentFilter::ALL {
                    let latents = Tensor::full(0.7, [2, 3, rows, columns]);
                    let made = resize_latents(&latents, to_rows, to_columns, filter).expect("fits");
                    assert_eq!(made.dims(), [2, 3, to_rows, to_columns]);
                    // Shares of a cubic are 1 together but for their rounding.
                    let off = made.values().iter().find(|value| (**value - 0.7).abs() > 5e-6);
                    assert_eq!(off, None, "{rows}x{columns} to {to_rows}x{to_columns}, {filter:?}");
                }
            }
        }
    }

    #[test]
    fn nothing_is_made_of_nothing() {
        let refused = |dims: [usize; 4], rows, columns| {
            resize_latents(&Tensor::full(0.0, dims), rows, columns, LatentFilter::Bilinear).is_err()
        };
        assert!(refused([1, 1, 2, 2], 0, 2) && refused([1, 1, 2, 2], 2, 0) && refused([1, 1, 0, 2], 2, 2));
        assert!(refused([1, 1, 2, 2], usize::MAX, 2) && refused([1, 1, 2, 2], 1, usize::MAX));
    }
}

//! Pictures on their way to upscalers' layers and back.

use crate::error::{Result, bail};
use crate::tensor::Tensor;

/// DIV2K's, which several families take from colours.
pub(super) const MEAN: [f32; 3] = [0.4488, 0.4371, 0.4040];

/// How a picture is brought to what the layers take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::networks) struct Bringing {
    /// Both sides are filled up to a multiple of this, on the right and below, as in a mirror that stands on the last pixel.
    pub multiple: usize,
    /// Squares of this side become one pixel of more channels, as torch's `pixel_unshuffle` orders them.
    pub unshuffle: usize,
    /// Taken from each colour first; all three zero for grey.
    pub mean: [f32; 3],
    /// What it is multiplied by then.
    pub range: f32,
    /// Whether the same is undone at the end.
    pub restored: bool,
}

impl Bringing {
    /// As it is.
    pub(in crate::networks) const PLAIN: Self =
        Self { multiple: 1, unshuffle: 1, mean: [0.0; 3], range: 1.0, restored: false };

    /// `(batch, colours, height, width)` → `(batch, rows, columns, unshuffle² · colours)`.
    pub(in crate::networks) fn brought(&self, image: &Tensor) -> Result<Tensor> {
        let (batch, colours, height, width) = image.dims4()?;
        let Self { multiple, unshuffle, .. } = *self;
        let (filled_height, filled_width) =
            (height.next_multiple_of(multiple), width.next_multiple_of(multiple));
        if unshuffle == 0
            || !filled_height.is_multiple_of(unshuffle)
            || !filled_width.is_multiple_of(unshuffle)
        {
            bail!("a picture of {filled_width}x{filled_height} cannot be unshuffled by {unshuffle}");
        }
        let (rows, columns) = (filled_height / unshuffle, filled_width / unshuffle);
        let places = unshuffle * unshuffle;
        let mut values = Vec::with_capacity(batch * filled_height * filled_width * colours);
        for picture in image.values().chunks_exact((colours * height * width).max(1)) {
            for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
                for channel in 0..colours * places {
                    let (colour, place) = (channel / places, channel % places);
                    let y = mirrored(row * unshuffle + place / unshuffle, height);
                    let x = mirrored(column * unshuffle + place % unshuffle, width);
                    let value = picture.get((colour * height + y) * width + x).copied().unwrap_or_default();
                    values.push((value - self.mean_of(colour)) * self.range);
                }
            }
        }
        Tensor::new(values, [batch, rows, columns, colours * places])
    }

    fn mean_of(&self, colour: usize) -> f32 {
        self.mean.get(colour).copied().unwrap_or_default()
    }
}

/// What layers made, `(batch, rows, columns, colours)` with at least the wanted rows and columns, as a picture of these sizes,
/// `(batch, colours, height, width)`.
pub(super) fn back(made: &Tensor, bringing: Bringing, wanted: [usize; 4]) -> Result<Tensor> {
    let [batch, colours, height, width] = wanted;
    let (of, rows, columns, channels) = made.dims4()?;
    if of != batch || channels != colours || rows < height || columns < width {
        bail!("upscaled to {:?}, {wanted:?} is wanted", made.dims());
    }
    let mut values = Vec::with_capacity(wanted.iter().product());
    for picture in made.values().chunks_exact((rows * columns * colours).max(1)) {
        for colour in 0..colours {
            for row in picture.chunks_exact((columns * colours).max(1)).take(height) {
                let line = row.iter().skip(colour).step_by(colours.max(1)).take(width);
                if bringing.restored {
                    values.extend(line.map(|value| value / bringing.range + bringing.mean_of(colour)));
                } else {
                    values.extend(line);
                }
            }
        }
    }
    Tensor::new(values, wanted)
}

/// A place beyond the last one of `size`, as in a mirror that stands on it; however far beyond.
fn mirrored(at: usize, size: usize) -> usize {
    let last = size.saturating_sub(1);
    if last == 0 {
        return 0;
    }
    let within = at % (2 * last);
    if within > last { 2 * last - within } else { within }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_filled_up_is_as_in_a_mirror() {
        let at = |size: usize| (0..9).map(|at| mirrored(at, size)).collect::<Vec<_>>();
        assert_eq!(at(4), [0, 1, 2, 3, 2, 1, 0, 1, 2]);
        assert_eq!(at(1), [0; 9]);
        assert_eq!(at(2), [0, 1, 0, 1, 0, 1, 0, 1, 0]);
    }

    #[test]
    fn squares_become_channels_in_torchs_order_and_pictures_come_back() {
        let image = Tensor::new((0..12).map(|value| value as f32).collect(), [1, 2, 2, 3]).expect("a tensor");
        let bringing = Bringing { multiple: 2, unshuffle: 2, ..Bringing::PLAIN };
        let brought = bringing.brought(&image).expect("brought");
        assert_eq!(brought.dims(), [1, 1, 2, 8]);
        let expected = [0.0, 1.0, 3.0, 4.0, 6.0, 7.0, 9.0, 10.0, 2.0, 1.0, 5.0, 4.0, 8.0, 7.0, 11.0, 10.0];
        assert_eq!(brought.values(), expected);
        let normal = Bringing { mean: [0.5, 1.0, 0.0], range: 4.0, restored: true, ..Bringing::PLAIN };
        let brought = normal.brought(&image).expect("brought");
        assert_eq!(brought.values()[..2], [-2.0, 20.0]);
        assert_eq!(back(&brought, normal, [1, 2, 2, 3]).expect("back").values(), image.values());
        assert_eq!(back(&brought, normal, [1, 2, 1, 2]).expect("back").values(), [0.0, 1.0, 6.0, 7.0]);
        assert!(back(&brought, normal, [1, 2, 3, 3]).is_err());
    }
}

//! Attention within windows of a picture, with a number added to each score: Swin's, and those of others that have it from there.
//!
//! Computed on the host in f32: a window has few keys, and the numbers that are added are the kernels' to learn.

use rayon::prelude::*;

use super::backend::{Activations, Device};
use crate::error::{Result, bail};

/// What is added to scores between places that a shift brought together.
const APART: f32 = -100.0;

/// How a picture is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Rows of a window.
    pub rows: usize,
    /// Columns of a window.
    pub columns: usize,
    /// Rows and columns by which the picture is shifted around first; places that were not neighbours do not see each other then.
    pub shift: Option<(usize, usize)>,
    /// Both sides are filled up with zeros to a multiple of this, which rows and columns divide.
    pub multiple: usize,
}

/// Which channels attend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// The first channel of the first head.
    pub first: usize,
    /// Heads, one after the other.
    pub count: usize,
    /// Channels of each.
    pub width: usize,
}

/// A picture that is cut into windows.
struct Cut {
    windows: Windows,
    height: usize,
    width: usize,
    /// As filled up.
    filled: (usize, usize),
}

impl Cut {
    fn new(windows: Windows, height: usize, width: usize) -> Self {
        let filled = (height.next_multiple_of(windows.multiple), width.next_multiple_of(windows.multiple));
        Self { windows, height, width, filled }
    }

    fn size(&self) -> usize {
        self.windows.rows * self.windows.columns
    }

    /// Windows of a picture.
    fn count(&self) -> usize {
        self.filled.0 * self.filled.1 / self.size()
    }

    /// Where a place of a window is in the shifted picture.
    fn shifted(&self, window: usize, place: usize) -> (usize, usize) {
        let Windows { rows, columns, .. } = self.windows;
        let across = self.filled.1 / columns;
        (window / across * rows + place / columns, window % across * columns + place % columns)
    }

    /// Which pixel stands at a place of a window; `None` for one that was filled up.
    fn pixel(&self, window: usize, place: usize) -> Option<usize> {
        let (y, x) = self.shifted(window, place);
        let (down, right) = self.windows.shift.unwrap_or_default();
        let (y, x) = ((y + down) % self.filled.0, (x + right) % self.filled.1);
        (y < self.height && x < self.width).then_some(y * self.width + x)
    }

    /// The window of a pixel, and its place there.
    fn place(&self, pixel: usize) -> (usize, usize) {
        let Windows { rows, columns, shift, .. } = self.windows;
        let (down, right) = shift.unwrap_or_default();
        let y = (pixel / self.width + self.filled.0 - down) % self.filled.0;
        let x = (pixel % self.width + self.filled.1 - right) % self.filled.1;
        (y / rows * (self.filled.1 / columns) + x / columns, y % rows * columns + x % columns)
    }

    /// Of the nine parts that a shift makes of a picture that of a place: those of one part see each other.
    fn part(&self, window: usize, place: usize) -> usize {
        let Some((down, right)) = self.windows.shift else { return 0 };
        let (y, x) = self.shifted(window, place);
        let part = |at: usize, size: usize, window: usize, shift: usize| {
            usize::from(at + window >= size) + usize::from(at + shift >= size)
        };
        3 * part(y, self.filled.0, self.windows.rows, down)
            + part(x, self.filled.1, self.windows.columns, right)
    }
}

/// softmax(q kᵀ / √width + bias) v within each window, for the channels of `heads`: `qkv (batch, height, width, 3 · channels)`,
/// queries first, then keys, then values → `(batch, height, width, heads · width)`, in the precision of `qkv`. `bias` is
/// `(heads, places, places)`, queries before keys, row by row in a window.
pub fn attention_in_windows(
    device: &Device,
    qkv: &Activations,
    heads: Heads,
    windows: Windows,
    bias: &[f32],
) -> Result<Activations> {
    let (batch, height, width, all) = qkv.dims4()?;
    let (channels, own) = (all / 3, heads.count * heads.width);
    let Windows { rows, columns, multiple, shift } = windows;
    let fits = |side: usize| side > 0 && multiple.is_multiple_of(side);
    let shifts = shift.is_none_or(|(down, right)| down < rows && right < columns);
    if multiple == 0 || !fits(rows) || !fits(columns) || !shifts || height * width == 0 {
        bail!("attention in windows: {windows:?} of a picture {:?}", qkv.dims());
    }
    let cut = Cut::new(windows, height, width);
    let places = cut.size();
    if all % 3 != 0 || heads.first + own > channels || own == 0 || bias.len() != heads.count * places * places
    {
        bail!("attention in windows: {heads:?} of {:?}, {} numbers to add", qkv.dims(), bias.len());
    }
    let dims = [batch, height, width, own];
    if !device.computes() {
        // All three and the result lie on the host at once.
        let _host = device.upload(&[], &[batch, height, width, all + 2 * own])?;
        return device.convert(&device.upload(&[], &dims)?, qkv.precision());
    }
    let values = device.download(qkv)?;
    let mut out = vec![0.0; batch * cut.count() * places * own];
    out.par_chunks_mut(places * own).enumerate().for_each_init(
        || Scratch::new(places, heads.width),
        |scratch, (index, out)| {
            let (picture, window) = (index / cut.count(), index % cut.count());
            let picture = &values[picture * height * width * all..][..height * width * all];
            scratch.locate(&cut, window);
            for head in 0..heads.count {
                let first = heads.first + head * heads.width;
                scratch.attend(picture, (all, channels, first), &bias[head * places * places..], {
                    |place, channel, value| out[place * own + head * heads.width + channel] = value
                });
            }
        },
    );
    let pixels = height * width;
    let from = |pixel: usize| {
        let (window, place) = cut.place(pixel % pixels);
        (pixel / pixels * cut.count() + window) * places + place
    };
    let made = device.upload(&out, &[batch * cut.count(), places, own])?;
    drop(out);
    device.rows(&device.convert(&made, qkv.precision())?, &dims, &from)
}

/// What one window takes.
struct Scratch {
    places: usize,
    width: usize,
    pixels: Vec<Option<usize>>,
    parts: Vec<usize>,
    /// `(width, places)`.
    keys: Vec<f32>,
    /// `(places, width)`.
    values: Vec<f32>,
    scores: Vec<f32>,
    sums: Vec<f32>,
}

impl Scratch {
    fn new(places: usize, width: usize) -> Self {
        Self {
            places,
            width,
            pixels: vec![],
            parts: vec![],
            keys: vec![0.0; width * places],
            values: vec![0.0; width * places],
            scores: vec![0.0; places],
            sums: vec![0.0; width],
        }
    }

    fn locate(&mut self, cut: &Cut, window: usize) {
        self.pixels.clear();
        self.pixels.extend((0..self.places).map(|place| cut.pixel(window, place)));
        self.parts.clear();
        self.parts.extend((0..self.places).map(|place| cut.part(window, place)));
    }

    fn attend(
        &mut self,
        picture: &[f32],
        (all, channels, first): (usize, usize, usize),
        bias: &[f32],
        mut store: impl FnMut(usize, usize, f32),
    ) {
        let Self { places, width, pixels, parts, keys, values, scores, sums } = self;
        for (place, pixel) in pixels.iter().enumerate() {
            for channel in 0..*width {
                let at = |which: usize| {
                    pixel.map_or(0.0, |pixel| picture[pixel * all + which * channels + first + channel])
                };
                keys[channel * *places + place] = at(1);
                values[place * *width + channel] = at(2);
            }
        }
        let scale = 1.0 / (*width as f32).sqrt();
        for (place, pixel) in pixels.iter().enumerate() {
            // What is filled up is seen, and sees nothing that counts.
            let Some(pixel) = pixel else { continue };
            scores.copy_from_slice(&bias[place * *places..][..*places]);
            if parts.iter().any(|part| *part != parts[place]) {
                let apart = scores.iter_mut().zip(parts.iter()).filter(|(_, part)| **part != parts[place]);
                apart.for_each(|(score, _)| *score += APART);
            }
            for (channel, keys) in keys.chunks_exact(*places).enumerate() {
                let q = picture[pixel * all + first + channel] * scale;
                scores.iter_mut().zip(keys).for_each(|(score, key)| *score += q * key);
            }
            let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut total = 0.0;
            for score in scores.iter_mut() {
                *score = (*score - most).exp();
                total += *score;
            }
            sums.fill(0.0);
            for (score, values) in scores.iter().zip(values.chunks_exact(*width)) {
                sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += score * value);
            }
            for (channel, sum) in sums.iter().enumerate() {
                store(place, channel, sum / total);
            }
        }
    }
}

/// Numbers to add for each pair of places of a window of their distance: `of_distance(row, column, head)`, both counted from the
/// largest negative one on, as tables of relative positions are. `(heads, places, places)`.
pub fn of_distances(
    rows: usize,
    columns: usize,
    heads: usize,
    of_distance: impl Fn(usize, usize, usize) -> f32,
) -> Vec<f32> {
    let places = rows * columns;
    let mut bias = Vec::with_capacity(heads * places * places);
    for head in 0..heads {
        for query in 0..places {
            bias.extend((0..places).map(|key| {
                let row = query / columns + rows - 1 - key / columns;
                let column = query % columns + columns - 1 - key % columns;
                of_distance(row, column, head)
            }));
        }
    }
    bias
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_pixels_are_each_others() {
        for shift in [None, Some((1, 3))] {
            let windows = Windows { rows: 2, columns: 4, shift, multiple: 4 };
            let cut = Cut::new(windows, 5, 6);
            assert_eq!((cut.filled, cut.count()), ((8, 8), 8));
            let mut seen = 0;
            for (window, place) in (0..8).flat_map(|window| (0..8).map(move |place| (window, place))) {
                let Some(pixel) = cut.pixel(window, place) else { continue };
                assert_eq!(cut.place(pixel), (window, place));
                seen += 1;
            }
            assert_eq!(seen, 30, "each pixel once");
        }
    }
}

//! Pictures that say where: white here, black not.

use super::{Channels, Picture};
use crate::Result;
use crate::tensor::Tensor;

impl Picture {
    /// How much of each pixel counts, from 0 to 255: its opacity where not all are opaque, else its brightness, as Pillow's
    /// "L" has it. A1111 reads masks so (`modules/processing.py: create_binary_mask`).
    pub fn mask(&self) -> Vec<u8> {
        if let Some(alpha) = self.alpha().filter(|alpha| alpha.iter().any(|alpha| *alpha < 255)) {
            return alpha;
        }
        let brightness = |pixel: &[u8]| match pixel {
            [red, green, blue, ..] => {
                let sum = u32::from(*red) * 19595 + u32::from(*green) * 38470 + u32::from(*blue) * 7471;
                ((sum + 0x8000) >> 16) as u8
            }
            [grey, ..] => *grey,
            [] => 0,
        };
        match self.channels {
            Channels::Grey => self.pixels.clone(),
            Channels::Rgb | Channels::Rgba => {
                self.pixels.chunks_exact(self.channels.count()).map(brightness).collect()
            }
        }
    }

    /// The mask's mean over each cell of a grid that covers the picture, `(rows, columns)`, from 0 to 1. Any size will do for
    /// any grid: pixels that cells share count by their parts.
    pub fn coverage(&self, rows: usize, columns: usize) -> Result<Tensor> {
        let mask = self.mask();
        let (across, down) = (shares(self.width, columns), shares(self.height, rows));
        let mean = |cell: &[(usize, f64)], value: &dyn Fn(usize) -> f64| -> f64 {
            cell.iter().map(|(place, share)| value(*place) * share).sum()
        };
        let lines: Vec<Vec<f64>> = mask
            .chunks_exact(self.width)
            .map(|line| across.iter().map(|cell| mean(cell, &|x| f64::from(line[x]))).collect())
            .collect();
        let mut values = Vec::with_capacity(rows * columns);
        for cell in &down {
            values.extend((0..columns).map(|column| (mean(cell, &|y| lines[y][column]) / 255.0) as f32));
        }
        Tensor::new(values, [rows, columns])
    }
}

/// For each of `cells` that divide a side: the pixels that it has part in, and how much of it each is.
fn shares(side: usize, cells: usize) -> Vec<Vec<(usize, f64)>> {
    let size = side as f64 / cells as f64;
    let cell = |index: usize| {
        let (begin, end) = (index as f64 * size, ((index + 1) as f64 * size).min(side as f64));
        let pixels = begin.floor() as usize..(end.ceil() as usize).min(side);
        let share = |pixel: usize| ((pixel + 1) as f64).min(end) - (pixel as f64).max(begin);
        let all: f64 = pixels.clone().map(share).sum();
        pixels.map(|pixel| (pixel, share(pixel) / all)).filter(|(_, share)| *share > 0.0).collect()
    };
    (0..cells).map(cell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grey(width: usize, pixels: &[u8]) -> Picture {
        Picture { width, height: pixels.len() / width, channels: Channels::Grey, pixels: pixels.to_vec() }
    }

    #[test]
    fn a_mask_is_opacity_or_brightness() {
        let rgba = |pixels: &[u8]| Picture {
            width: 2,
            height: 1,
            channels: Channels::Rgba,
            pixels: pixels.to_vec(),
        };
        assert_eq!(rgba(&[255, 255, 255, 0, 0, 0, 0, 200]).mask(), [0, 200]);
        assert_eq!(rgba(&[255, 0, 0, 255, 255, 255, 255, 255]).mask(), [76, 255]);
        assert_eq!(grey(2, &[3, 4]).mask(), [3, 4]);
    }

    #[test]
    fn cells_are_means_whatever_the_sizes() {
        let of = |picture: &Picture, rows, columns| {
            picture.coverage(rows, columns).expect("fits").values().to_vec()
        };
        let four = grey(4, &[255, 255, 0, 0, 255, 0, 0, 255]);
        assert_eq!(of(&four, 1, 2), [0.75, 0.25]);
        assert_eq!(of(&four, 2, 4), [1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0]);
        // Larger cells than pixels, smaller ones, and such as share pixels.
        assert_eq!(of(&grey(1, &[255]), 2, 3), [1.0; 6]);
        let thirds = of(&grey(2, &[255, 0]), 1, 3);
        assert!(thirds.iter().zip([1.0, 0.5, 0.0]).all(|(a, b)| (a - b).abs() < 1e-6), "{thirds:?}");
        for side in [1, 7, 63, 64, 65, 511] {
            let all = of(&grey(side, &vec![255; side * 3]), 8, 8);
            assert!(all.iter().all(|value| (value - 1.0).abs() < 1e-6), "{side}: {all:?}");
        }
    }
}

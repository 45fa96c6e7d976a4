//! What stands for a VAE: a latent is what its 8 × 8 pixels are on average.

use latentd_models::image::RgbImage;
use latentd_models::pipeline::ImageCoding;
use latentd_models::{Error, Result, Tensor};

/// Of latents.
const CHANNELS: usize = 4;
/// Pixels to a latent, each way.
const PIXELS: usize = 8;

pub(super) struct Coding;

impl ImageCoding for Coding {
    fn encode(&self, image: RgbImage, seed: u64) -> Result<Tensor> {
        let RgbImage { width, height, pixels } = image;
        if width == 0 || height == 0 || !width.is_multiple_of(PIXELS) || !height.is_multiple_of(PIXELS) {
            return Err(Error::Request(format!("a picture of {width} × {height} pixels")));
        }
        let (rows, columns) = (height / PIXELS, width / PIXELS);
        let mut values = vec![];
        for channel in 0..CHANNELS {
            for at in 0..rows * columns {
                let (y, x) = (at / columns * PIXELS, at % columns * PIXELS);
                let sum: f32 = (0..PIXELS * PIXELS)
                    .filter_map(|of| {
                        let pixel = (y + of / PIXELS) * width + x + of % PIXELS;
                        pixels.get(pixel * 3 + channel % 3).map(|value| f32::from(*value))
                    })
                    .sum();
                values.push(sum / 8160.0 - 1.0 + (seed % 7) as f32 * 1e-3);
            }
        }
        Tensor::new(values, [1, CHANNELS, rows, columns])
    }

    fn decode(&self, latents: &Tensor) -> Result<RgbImage> {
        let [1, CHANNELS, rows, columns] = *latents.dims() else {
            return Err(Error::Request(format!("latents {:?}", latents.dims())));
        };
        let (width, height) = (columns * PIXELS, rows * PIXELS);
        let pixel = |at: usize| {
            let (y, x) = (at / width / PIXELS, at % width / PIXELS);
            [0, 1, 2].map(|channel| {
                let latent = latents.values().get((channel * rows + y) * columns + x);
                ((latent.copied().unwrap_or_default() + 1.0) * 127.5).clamp(0.0, 255.0) as u8
            })
        };
        Ok(RgbImage { width, height, pixels: (0..width * height).flat_map(pixel).collect() })
    }
}

//! Cheap pictures of latents.

use super::RgbImage;
use crate::error::Result;
use crate::tensor::Tensor;

/// Latents `(batch, channels, height, width)` as one picture each, a pixel per latent. `factors` say what each channel
/// adds to red, green and blue, in [−1, 1].
pub fn latent_preview(latents: &Tensor, factors: &[[f32; 3]]) -> Result<Vec<RgbImage>> {
    let (batch, channels, height, width) = latents.dims4()?;
    let values = latents.values();
    let plane = height * width;
    let images = values.chunks_exact((channels * plane).max(1)).take(batch).map(|latent| {
        let mut pixels = Vec::with_capacity(plane * 3);
        for position in 0..plane {
            for colour in 0..3 {
                let parts = factors.iter().enumerate().take(channels);
                let value: f32 =
                    parts.map(|(channel, rgb)| latent[channel * plane + position] * rgb[colour]).sum();
                pixels.push(((value + 1.0) * 127.5).clamp(0.0, 255.0) as u8);
            }
        }
        RgbImage { width, height, pixels }
    });
    Ok(images.collect())
}

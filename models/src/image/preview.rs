//! Cheap pictures of latents.

use candle_core::{Result, Tensor};

use super::RgbImage;

/// What each of the 4 latent channels of SD 1.x adds to red, green and blue, in [−1, 1]: A1111's "Approx cheap".
const RGB: [[f32; 3]; 4] =
    [[0.298, 0.207, 0.208], [0.187, 0.286, 0.173], [-0.158, 0.189, 0.264], [-0.184, -0.271, -0.473]];

/// Latents `(batch, 4, height, width)` as one picture each, a pixel per latent.
pub fn latent_preview(latents: &Tensor) -> Result<Vec<RgbImage>> {
    let (batch, channels, height, width) = latents.dims4()?;
    let values = latents.flatten_all()?.to_vec1::<f32>()?;
    let plane = height * width;
    let images = values.chunks_exact((channels * plane).max(1)).take(batch).map(|latent| {
        let mut pixels = Vec::with_capacity(plane * 3);
        for position in 0..plane {
            for colour in 0..3 {
                let parts = RGB.iter().enumerate().take(channels);
                let value: f32 =
                    parts.map(|(channel, rgb)| latent[channel * plane + position] * rgb[colour]).sum();
                pixels.push(((value + 1.0) * 127.5).clamp(0.0, 255.0) as u8);
            }
        }
        RgbImage { width, height, pixels }
    });
    Ok(images.collect())
}

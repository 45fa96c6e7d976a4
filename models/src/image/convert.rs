//! Decoded tensors to pixels, and pixels to what is encoded.

use super::{Picture, RgbImage};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// `(1, 3, height, width)` in about [−1, 1] → 8 bit: clamped, scaled, truncated, as A1111 does.
pub fn tensor_to_image(image: &Tensor) -> Result<RgbImage> {
    let (_, _, height, width) = image.dims4()?;
    let values = image.values();
    if values.iter().any(|value| value.is_nan()) {
        let reason = "the picture came out as NaN: the checkpoint's weights overflow, or its VAE is broken";
        return Err(Error::NotFinite(reason.to_owned()));
    }
    let plane = height * width;
    let pixel = |position: usize| [0, 1, 2].map(|colour| to_8_bit(values[colour * plane + position]));
    Ok(RgbImage { width, height, pixels: (0..plane).flat_map(pixel).collect() })
}

/// A picture of red, green and blue → `(1, 3, height, width)` in [−1, 1], in f32 as A1111 does.
pub(crate) fn picture_to_tensor(picture: &Picture) -> Result<Tensor> {
    let Picture { width, height, ref pixels, .. } = *picture;
    let scaled = |value: &u8| f32::from(*value) / 255.0 * 2.0 - 1.0;
    let colour = |colour: usize| pixels.iter().skip(colour).step_by(3).map(scaled);
    Tensor::new((0..3).flat_map(colour).collect(), [1, 3, height, width])
}

fn to_8_bit(value: f32) -> u8 {
    (f32::midpoint(value, 1.0).clamp(0.0, 1.0) * 255.0) as u8
}

//! A1111's masked content "fill": the mask filled with the colours around it, blurred more the further away they are
//! (`modules/masking.py: fill`), byte for byte.

use super::Mask;
use crate::image::{Channels, Picture, alpha, box_blur};
use crate::{Error, Result};

/// Blurs of what is not masked from the widest to none, `(radius in pixels, how often it is laid over the ones before)`.
const LAYERS: [(f32, usize); 6] = [(256.0, 1), (64.0, 1), (16.0, 2), (4.0, 4), (2.0, 2), (0.0, 1)];

/// RGB: the picture where the mask is 0, and what comes from around where it is not. Opacity is dropped. Where all is masked
/// it is black. `mask` has the picture's size. Takes about five times the picture's memory besides.
pub fn fill_from_surroundings(picture: &Picture, mask: &Mask) -> Result<Picture> {
    picture.check()?;
    let (width, height) = (picture.width, picture.height);
    if (width, height) != mask.size() {
        let (wide, high) = mask.size();
        let text = format!(
            "mask: {wide}x{high} does not lie over a picture of {width}x{height}; give it the same size"
        );
        return Err(Error::Request(text));
    }
    let picture = Picture::from(picture.clone().into_rgb());
    let pixels = picture.pixels.chunks_exact(3).zip(mask.values());
    let kept: Vec<u8> = pixels
        .flat_map(|(pixel, drawn)| {
            [pixel[0], pixel[1], pixel[2], 255].map(|value| alpha::mix(value, 0, *drawn))
        })
        .collect();
    let mut filled = vec![[0; 4]; width * height];
    for (radius, times) in LAYERS {
        let mut layer = kept.clone();
        box_blur::gaussian::<4>(&mut layer, width, radius);
        alpha::divide(&mut layer);
        for (below, above) in filled.iter_mut().zip(layer.chunks_exact(4)) {
            let above = [above[0], above[1], above[2], above[3]];
            for _ in 0..times {
                *below = alpha::over(*below, above);
            }
        }
    }
    let pixels = filled.into_iter().flat_map(|[red, green, blue, _]| [red, green, blue]).collect();
    Ok(Picture { width, height, channels: Channels::Rgb, pixels })
}

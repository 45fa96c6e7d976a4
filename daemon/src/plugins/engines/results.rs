//! What engines answer: whether it can be meant, and as whoever asked gets it.

use std::sync::Arc;

use latentd_models::Tensor;
use latentd_models::image::{LONGEST_SIDE, MOST_PIXELS};
use latentd_plugin_api::abi::latentd_engine_run;

use super::engine::Engine;
use crate::error::{Error, Result};
use crate::plugins::engine_calls::Detection;
use crate::plugins::engine_kinds::Kind;
use crate::plugins::objects::{Content, Image};

/// What one call of an engine left.
pub(super) struct Left {
    pub image: Option<Content>,
    pub detections: Vec<Detection>,
    /// MessagePack, a map; or nothing.
    pub data: Vec<u8>,
}

impl Left {
    /// Whether it is what an engine of this kind may make of a picture.
    pub(super) fn check(
        &self,
        engine: &Engine,
        of: &Content,
        asked: &latentd_engine_run,
    ) -> Result<(), String> {
        if let Some(made) = &self.image {
            check_image(engine, of, asked, made)?;
        }
        for found in &self.detections {
            check_found(engine.kind, of, found).map_err(|text| format!("'{}': {text}", found.label))?;
        }
        let mut rest = &self.data[..];
        let is_map = rest.is_empty()
            || rmpv::decode::read_value_with_max_depth(&mut rest, 32).is_ok_and(|value| value.is_map())
                && rest.is_empty();
        if is_map { Ok(()) } else { Err("reply 0 is no map in MessagePack".to_owned()) }
    }
}

fn check_image(
    engine: &Engine,
    of: &Content,
    asked: &latentd_engine_run,
    made: &Content,
) -> Result<(), String> {
    let mut wanted = of.dims();
    let dims = made.dims();
    match (engine.kind, &dims[..]) {
        (Kind::Upscaler, _) => wanted.iter_mut().skip(2).for_each(|side| *side *= engine.tiling.scale),
        (Kind::Preprocessor, [_, channels, height, width]) => {
            // It has its own channels, and sizes that nobody asked for.
            let side = |asked: u32, made: usize| if asked == 0 { made } else { asked as usize };
            wanted = vec![1, *channels, side(asked.height, *height), side(asked.width, *width)];
            if *width.max(height) > LONGEST_SIDE || width.saturating_mul(*height) > MOST_PIXELS {
                return Err(format!("an image of {width} x {height} is larger than any may be"));
            }
        }
        _ => (),
    }
    let kind = |content: &Content| match content {
        Content::Tensor(_) => "a tensor",
        Content::Image(_) => "an image",
        Content::Bytes(_) => "a file",
    };
    if kind(of) != kind(made) || dims != wanted {
        let (old, new) = (kind(of), kind(made));
        return Err(format!("{new} {dims:?} where {old} {wanted:?} was wanted"));
    }
    match made {
        Content::Tensor(tensor) => match tensor.values().iter().position(|value| !value.is_finite()) {
            Some(index) => {
                let value = tensor.values().get(index).copied().unwrap_or_default();
                Err(format!("number {index} of {wanted:?} is {value}"))
            }
            None => Ok(()),
        },
        Content::Image(_) | Content::Bytes(_) => Ok(()),
    }
}

/// Whether a thing can have been found in a picture.
fn check_found(kind: Kind, of: &Content, found: &Detection) -> Result<(), String> {
    let dims = of.dims();
    if let Some(mask) = &found.mask
        && dims.get(2..) != Some(&[mask.height, mask.width][..])
    {
        return Err(format!("its mask is {}x{}, of an image {dims:?}", mask.width, mask.height));
    }
    if kind == Kind::Tagger && found.bounds != [0.0; 4] {
        return Err("a tagger's things have no boxes".to_owned());
    }
    Ok(())
}

/// A picture as engines see it: three colours, without alpha; as f32 of 0…1 if `as_float`.
pub(in crate::plugins) fn coloured(image: &Image, as_float: bool) -> Result<Content> {
    let Image { width, height, channels, pixels } = image;
    let pixels = match channels {
        1 => Arc::new(pixels.iter().flat_map(|grey| [*grey; 3]).collect()),
        3 => Arc::clone(pixels),
        _ => {
            let colours = pixels.chunks_exact(*channels).flat_map(|pixel| pixel.iter().take(3).copied());
            Arc::new(colours.collect())
        }
    };
    let image = Image { width: *width, height: *height, channels: 3, pixels };
    if !as_float {
        return Ok(Content::Image(image));
    }
    let values = image.planes().into_iter().map(|value| f32::from(value) / 255.0).collect();
    Ok(Content::Tensor(Tensor::new(values, [1, 3, *height, *width])?))
}

/// What an engine made, as an image.
pub(super) fn image_of(made: Content) -> Result<Image> {
    match made {
        Content::Image(image) => Ok(image),
        Content::Tensor(tensor) => {
            let (channels, height, width) = (tensor.dim(1), tensor.dim(2), tensor.dim(3));
            if ![1, 3, 4].contains(&channels) || tensor.dim(0) != 1 {
                return Err(Error::internal(format!("a tensor {:?} is no image", tensor.dims())));
            }
            let plane = width * height;
            let value = |at: usize| {
                let value = tensor.values().get(at % channels * plane + at / channels).copied();
                (value.unwrap_or_default().clamp(0.0, 1.0) * 255.0).round() as u8
            };
            let pixels = Arc::new((0..channels * plane).map(value).collect());
            Ok(Image { width, height, channels, pixels })
        }
        Content::Bytes(_) => Err(Error::internal("a file where an image was")),
    }
}

/// A picture of three colours with another one's alpha, where that has some and is as large.
pub(super) fn with_alpha_of(of: &Image, made: Image) -> Image {
    if of.channels != 4 || made.channels != 3 || (of.width, of.height) != (made.width, made.height) {
        return made;
    }
    let alpha = of.pixels.chunks_exact(4).map(|pixel| pixel.last().copied().unwrap_or_default());
    let pixels = made.pixels.chunks_exact(3).zip(alpha);
    let pixels = pixels.flat_map(|(pixel, alpha)| pixel.iter().copied().chain([alpha])).collect();
    Image { channels: 4, pixels: Arc::new(pixels), ..made }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(channels: usize, pixels: &[u8]) -> Image {
        Image { width: pixels.len() / channels, height: 1, channels, pixels: Arc::new(pixels.to_vec()) }
    }

    #[test]
    fn engines_see_three_colours_and_alpha_comes_back() {
        let alpha = image(4, &[1, 2, 3, 200, 4, 5, 6, 0]);
        for (of, seen) in [
            (image(1, &[7, 9]), [7, 7, 7, 9, 9, 9]),
            (image(3, &[1, 2, 3, 4, 5, 6]), [1, 2, 3, 4, 5, 6]),
            (alpha.clone(), [1, 2, 3, 4, 5, 6]),
        ] {
            for as_float in [false, true] {
                let seen_now = image_of(coloured(&of, as_float).expect("coloured")).expect("an image");
                assert_eq!(seen_now, image(3, &seen));
            }
        }
        assert_eq!(
            with_alpha_of(&alpha, image(3, &[9, 8, 7, 6, 5, 4])),
            image(4, &[9, 8, 7, 200, 6, 5, 4, 0])
        );
        assert_eq!(with_alpha_of(&image(3, &[0; 3]), image(3, &[1, 2, 3])), image(3, &[1, 2, 3]));
    }
}

//! What is said of a module when it is to run, by clients and by other plugins alike.

use latentd_plugin_api::{Call, Error, Image, NewImage, Result};
use serde::Deserialize;

use crate::preprocessors::hint::{ResizeMode, check_between, fitted, fitted_masked};
use crate::preprocessors::resolution::pixel_perfect;
use crate::preprocessors::{MOST_PIXELS, Module, Picture, Settings, run};

/// Beside module and picture. What is left out is as usual.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Asked {
    /// Pixels of the shorter side as the module sees it; −1: the module's own.
    pub processor_res: f64,
    /// Of them the number that needs no more resizing, where a size is wanted.
    pub pixel_perfect: bool,
    /// The module's first slider; −1: its default.
    pub threshold_a: f64,
    /// The second.
    pub threshold_b: f64,
    /// What chance begins with.
    pub seed: u32,
    /// How it comes to the wanted size.
    pub resize_mode: String,
}

impl Default for Asked {
    fn default() -> Self {
        let (processor_res, threshold_a, threshold_b) = (-1.0, -1.0, -1.0);
        let resize_mode = "Crop and Resize".to_owned();
        Self { processor_res, pixel_perfect: false, threshold_a, threshold_b, seed: 0, resize_mode }
    }
}

/// What was asked, looked at: it can be done.
pub struct Preprocessing {
    /// Which.
    pub module: &'static Module,
    settings: Settings,
    /// Width and height, where they are wanted.
    size: Option<(usize, usize)>,
    mode: ResizeMode,
}

impl Preprocessing {
    /// Of a picture of these sides; an error says what would be right.
    pub fn of(
        module: &'static Module,
        (width, height): (usize, usize),
        size: (usize, usize),
        asked: &Asked,
    ) -> Result<Self> {
        if module.is_of_ip_adapters() {
            let text = format!(
                "module: {} makes no picture: it is for units whose model is an IP-Adapter",
                module.name
            );
            return Err(Error::unsupported(text));
        }
        let mode = ResizeMode::called(&asked.resize_mode).ok_or_else(|| {
            let text = format!(
                "resize_mode: '{}' is none; there are {}",
                asked.resize_mode,
                ResizeMode::NAMES.join(", ")
            );
            Error::invalid(text)
        })?;
        let mut settings =
            module.settings(asked.processor_res, asked.threshold_a, asked.threshold_b, asked.seed)?;
        let is_sized = size.0 > 0 && size.1 > 0;
        if !is_sized && size != (0, 0) || size.0.checked_mul(size.1).is_none_or(|pixels| pixels > MOST_PIXELS)
        {
            return Err(Error::invalid(format!(
                "width, height: {}x{} cannot be; give both, of no more than {MOST_PIXELS} pixels, or neither",
                size.0, size.1
            )));
        }
        if asked.pixel_perfect {
            if !is_sized {
                return Err(Error::invalid("pixel_perfect: it needs a width and a height"));
            }
            settings.resolution = pixel_perfect((width.max(1), height.max(1)), size, mode);
        }
        module.check(width, height, &settings)?;
        if is_sized {
            check_between((width, height), size, mode)?;
        }
        Ok(Self { module, settings, size: is_sized.then_some(size), mode })
    }

    /// What the module makes of it, in the wanted size.
    pub fn made(&self, picture: &Picture) -> Result<Picture> {
        let made = run(self.module.name, picture, &self.settings)?;
        Ok(match self.size {
            Some((width, height)) => fitted(&made, width, height, self.mode),
            None => made,
        })
    }

    /// What is shown of a module that looks at a mask, of a number for each pixel: the picture, with less opacity where it is to be
    /// drawn. Its size, and red, green, blue and opacity of each pixel.
    pub fn shown(&self, picture: &Picture, mask: &[u8]) -> (usize, usize, Vec<u8>) {
        let opacity = |mask: u8| 255 - mask / 2;
        let Some((width, height)) = self.size else {
            let pixels = picture.data.chunks_exact(3).zip(mask);
            let data =
                pixels.flat_map(|(pixel, mask)| [pixel[0], pixel[1], pixel[2], opacity(*mask)]).collect();
            return (picture.width, picture.height, data);
        };
        let made = fitted_masked(picture, mask, width, height, self.mode);
        let byte = |value: f32| value.round_ties_even() as u8;
        let pixel = |pixel: &[f32]| [byte(pixel[0]), byte(pixel[1]), byte(pixel[2]), opacity(byte(pixel[3]))];
        (made.width, made.height, made.data.chunks_exact(4).flat_map(pixel).collect())
    }
}

/// The pixels of an image, in three colours.
pub fn picture(image: &Image<'_>) -> Result<Picture> {
    Ok(Picture::of(image.width, image.height, image.channels, &image.read()?))
}

/// A picture as an image of the host.
pub fn image<'a>(call: &Call<'a>, picture: &Picture) -> Result<NewImage<'a>> {
    let mut image = call.new_image(picture.width, picture.height, 3)?;
    image.pixels_mut().copy_from_slice(&picture.data);
    Ok(image)
}

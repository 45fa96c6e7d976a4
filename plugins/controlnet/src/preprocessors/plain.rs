//! Modules that look at each pixel by itself, or at large ones.

use super::Settings;
use super::cv::Grid;
use super::cv::colour::Luminance;
use super::cv::resize::{Interpolation, resize};

/// Black becomes white.
pub fn inverted(mut picture: Grid<u8>) -> Grid<u8> {
    picture.data.iter_mut().for_each(|value| *value = 255 - *value);
    picture
}

/// White where all colours are above the first slider.
pub fn threshold(from: &Grid<u8>, settings: &Settings) -> Grid<u8> {
    let white = |pixel: &[u8]| pixel.iter().all(|value| f64::from(*value) > settings.first);
    let data = from.pixels().map(|pixel| if white(pixel) { 255 } else { 0 }).collect();
    Grid { width: from.width, height: from.height, channels: 1, data }
}

/// Smaller, by the first slider; what is hardly smaller stays as it is.
pub fn resampled(picture: Grid<u8>, settings: &Settings) -> Grid<u8> {
    if settings.first < 1.1 {
        return picture;
    }
    let side = |side: usize| ((side as f64 / settings.first) as usize).max(1);
    resize(&picture, side(picture.width), side(picture.height), Interpolation::Area)
}

/// Grey by luminance, which the first slider bends. The reference takes red for blue, and so do models that were made for it.
pub fn luminance(picture: &Grid<u8>, settings: &Settings) -> Grid<u8> {
    let table = Luminance::new();
    grey(picture, settings.first, |[red, green, blue]| table.of([blue, green, red]))
}

/// Grey by the brightest colour, which the first slider bends.
pub fn intensity(picture: &Grid<u8>, settings: &Settings) -> Grid<u8> {
    grey(picture, settings.first, |[red, green, blue]| red.max(green).max(blue))
}

fn grey(picture: &Grid<u8>, gamma: f64, of: impl Fn([u8; 3]) -> u8) -> Grid<u8> {
    let bent: [u8; 256] = std::array::from_fn(|value| bent(value as f32 / 255.0, gamma as f32));
    let data = picture.pixels().map(|pixel| bent[usize::from(of([pixel[0], pixel[1], pixel[2]]))]).collect();
    Grid { width: picture.width, height: picture.height, channels: 1, data }
}

/// 0…1 by a power, as a byte. What powers are exact is as exact as in the reference.
fn bent(value: f32, gamma: f32) -> u8 {
    let power = match gamma {
        1.0 => value,
        2.0 => value * value,
        0.5 => value.sqrt(),
        _ => f64::from(value).powf(f64::from(gamma)) as f32,
    };
    (power * 255.0) as u8
}

/// Colours of squares of 64 pixels.
pub fn colours(picture: &Grid<u8>, resolution: u32) -> Grid<u8> {
    const SQUARE: usize = 64;
    let other = |long: usize, short: usize| {
        (long as f64 / short as f64 * f64::from(resolution)).round_ties_even() as usize
    };
    let short = resolution as usize;
    let (width, height) = if picture.height < picture.width {
        (other(picture.width, picture.height), short)
    } else {
        (short, other(picture.height, picture.width))
    };
    let picture = resize(picture, width, height, Interpolation::Area);
    let squares = resize(&picture, width / SQUARE, height / SQUARE, Interpolation::Cubic);
    resize(&squares, width, height, Interpolation::Nearest)
}

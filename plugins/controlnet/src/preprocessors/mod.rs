//! Preprocessors: what makes hints of pictures, as sd-webui-controlnet and `controlnet_aux` make them. Those here need no network.
//!
//! Plain functions over bytes: nothing here knows the host.

mod cv;
pub mod hint;
mod lines;
mod modules;
mod plain;
mod random;
pub mod resolution;
mod shuffle;

use cv::Grid;
use latentd_plugin_api::Result;
pub use modules::{MODULES, Module, Resolution, Slider};

/// Pixels of the largest picture that is taken, and of the largest hint.
pub const MOST_PIXELS: usize = 1 << 26;

/// Pixels of the largest picture as a module sees it: 2048 on the shorter side, and four times as long.
pub const MOST_SEEN: usize = 1 << 24;

/// A picture of 8-bit numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Pixels of a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Rows from the top, red, green and blue of each pixel side by side.
    pub data: Vec<u8>,
}

/// What a module is told beside the picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Pixels that the shorter side gets before the module looks at it; of no matter where a module has no [`Resolution`].
    pub resolution: u32,
    /// The first slider, `threshold_a`.
    pub first: f64,
    /// The second, `threshold_b`.
    pub second: f64,
    /// What chance begins with: seed and subseed of the job, added up.
    pub seed: u32,
}

impl Picture {
    /// Of three channels, or of four over white.
    pub fn of(width: usize, height: usize, channels: usize, data: &[u8]) -> Self {
        let data = match channels {
            4 => data.chunks_exact(4).flat_map(over_white).collect(),
            1 => data.iter().flat_map(|value| [*value; 3]).collect(),
            _ => data.to_vec(),
        };
        Self { width, height, data }
    }
}

fn over_white(pixel: &[u8]) -> [u8; 3] {
    let alpha = f32::from(pixel[3]) / 255.0;
    std::array::from_fn(|channel| (f32::from(pixel[channel]) * alpha + 255.0 * (1.0 - alpha)) as u8)
}

impl From<Picture> for Grid<u8> {
    fn from(picture: Picture) -> Self {
        Self { width: picture.width, height: picture.height, channels: 3, data: picture.data }
    }
}

impl From<Grid<u8>> for Picture {
    fn from(grid: Grid<u8>) -> Self {
        let grid = if grid.channels == 1 { grid.in_three() } else { grid };
        Self { width: grid.width, height: grid.height, data: grid.data }
    }
}

/// What CLIP sees of a picture, whatever its sides are: a square.
pub fn squashed(picture: &Picture, side: usize) -> Picture {
    cv::resize::resize(&Grid::from(picture.clone()), side, side, cv::resize::Interpolation::Area).into()
}

/// What the module called `name` (either of its names) makes of a picture. Its settings are taken as they are:
/// [`Module::settings`] has looked at them.
pub fn run(name: &str, picture: &Picture, settings: &Settings) -> Result<Picture> {
    let module = Module::called(name)?;
    module.check(picture.width, picture.height, settings)?;
    let grid = || Grid::from(picture.clone());
    let resized = || resolution::Padded::of(&grid(), settings.resolution);
    let made: Grid<u8> = match module.name {
        "canny" => resized().through(|grid| lines::canny(grid, settings)),
        "scribble_xdog" => resized().through(|grid| lines::xdog(grid, settings)),
        "lineart_standard" => resized().through(lines::standard),
        "threshold" => resized().through(|grid| plain::threshold(grid, settings)),
        "blur_gaussian" => cv::gaussian::of_bytes(&resized().without(), settings.first),
        "shuffle" => shuffle::shuffled(&resized().without(), settings.seed),
        "color" => plain::colours(&grid(), settings.resolution),
        "invert" => plain::inverted(grid()),
        "tile_resample" => plain::resampled(grid(), settings),
        "recolor_luminance" => plain::luminance(&grid(), settings),
        "recolor_intensity" => plain::intensity(&grid(), settings),
        // What counts is done where the hint is used.
        _ => return Ok(picture.clone()),
    };
    Ok(made.into())
}

#[cfg(test)]
mod tests;

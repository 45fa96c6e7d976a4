//! Control maps in the size in which they are hints: edges stay edges, and areas of one colour stay so.

use std::collections::HashSet;

use latentd_plugin_api::{Error, Result};

use super::cv::median::median;
use super::cv::resize::{Interpolation, Sample, resize};
use super::cv::{Grid, morphology, otsu, thin};
use super::{MOST_PIXELS, Picture};

/// How a control map comes to the size of what is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResizeMode {
    /// Both sides as they are wanted.
    Just,
    /// It covers all, what stands out is cut off.
    Crop,
    /// All of it is there, in the usual colour of its edge.
    Fill,
}

impl ResizeMode {
    /// What requests say.
    pub const NAMES: [&str; 3] = ["Just Resize", "Crop and Resize", "Resize and Fill"];

    /// By the names that sd-webui-controlnet has, and had.
    pub fn called(name: &str) -> Option<Self> {
        match name {
            "Just Resize" => Some(Self::Just),
            "Crop and Resize" | "Inner Fit (Scale to Fit)" | "Scale to Fit (Inner Fit)" => Some(Self::Crop),
            "Resize and Fill" | "Outer Fit (Shrink to Fit)" | "Envelope (Outer Fit)" => Some(Self::Fill),
            _ => None,
        }
    }
}

/// A control map with a mask: what an inpainting hint is made of. Its colours may lie beyond 0…255.
#[derive(Clone, Debug, PartialEq)]
pub struct Masked {
    /// Pixels of a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Red, green, blue, and 255 where it is to be drawn, else 0.
    pub data: Vec<f32>,
}

/// An error unless a picture of these sides may become one of `wanted`: it is stretched as a whole, one side after the other, and what
/// stands out of that is cut off after.
pub fn check_between(own: (usize, usize), wanted: (usize, usize), mode: ResizeMode) -> Result<()> {
    let (wide, high) = (own.0.max(1) as f64, own.1.max(1) as f64);
    let (across, down) = (wanted.0 as f64 / wide, wanted.1 as f64 / high);
    let (to_wide, to_high) = match mode {
        ResizeMode::Just => (wanted.0 as f64, wanted.1 as f64),
        ResizeMode::Crop => (wide * across.max(down), high * across.max(down)),
        ResizeMode::Fill => (wide * across.min(down), high * across.min(down)),
    };
    let most = [to_wide * to_high, to_wide * high, wide * to_high].into_iter().fold(0.0, f64::max);
    if most <= MOST_PIXELS as f64 {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "image: {}x{} is too long to become {}x{}, with {to_wide:.0}x{to_high:.0} on the way; give one that is cut to that, or another \
         resize_mode",
        own.0, own.1, wanted.0, wanted.1
    )))
}

/// A control map of `width` × `height`.
pub fn fitted(map: &Picture, width: usize, height: usize, mode: ResizeMode) -> Picture {
    let map = Map { colours: map.clone().into(), mask: None };
    map.fitted(width, height, mode).colours.into()
}

/// One with a mask, of a number for each pixel.
pub fn fitted_masked(map: &Picture, mask: &[u8], width: usize, height: usize, mode: ResizeMode) -> Masked {
    let floats = |values: &[u8], channels: usize| Grid {
        width: map.width,
        height: map.height,
        channels,
        data: values.iter().map(|value| f32::from(*value)).collect(),
    };
    let map = Map { colours: floats(&map.data, 3), mask: Some(floats(mask, 1)) };
    let Map { colours, mask } = map.fitted(width, height, mode);
    let mask = mask.map(|mask| mask.data).unwrap_or_default();
    let pixels = colours.pixels().zip(&mask);
    let data = pixels.flat_map(|(pixel, mask)| [pixel[0], pixel[1], pixel[2], *mask]).collect();
    Masked { width, height, data }
}

struct Map<T> {
    colours: Grid<T>,
    mask: Option<Grid<T>>,
}

impl<T: Sample> Map<T> {
    fn fitted(self, width: usize, height: usize, mode: ResizeMode) -> Self {
        let (own_width, own_height) = (self.colours.width as f64, self.colours.height as f64);
        let (down, across) = (height as f64 / own_height, width as f64 / own_width);
        let sides = |times: f64| {
            let side = |side: f64| (side * times).round_ties_even().max(1.0) as usize;
            (side(own_width), side(own_height))
        };
        match mode {
            ResizeMode::Just => self.resized(width, height),
            ResizeMode::Crop => {
                let (whole_width, whole_height) = sides(down.max(across));
                let whole = self.resized(whole_width, whole_height);
                let left = whole_width.saturating_sub(width) / 2;
                let top = whole_height.saturating_sub(height) / 2;
                whole.each(|grid| grid.part(left, top, width.min(grid.width), height.min(grid.height)))
            }
            ResizeMode::Fill => {
                let edge = self.edge();
                let (whole_width, whole_height) = sides(down.min(across));
                let whole = self.resized(whole_width, whole_height);
                let place = |grid: &Grid<T>, usual: &[T]| {
                    let data = usual.iter().copied().cycle().take(width * height * grid.channels).collect();
                    let mut to = Grid { width, height, channels: grid.channels, data };
                    let (left, top) = ((width - grid.width) / 2 * grid.channels, (height - grid.height) / 2);
                    for y in 0..grid.height {
                        let row = grid.row(y);
                        to.row_mut(top + y)[left..left + row.len()].copy_from_slice(row);
                    }
                    to
                };
                Self {
                    colours: place(&whole.colours, &edge),
                    // What was not there is to be drawn.
                    mask: whole.mask.map(|mask| place(&mask, &[T::of(255.0)])),
                }
            }
        }
    }

    fn each(self, of: impl Fn(&Grid<T>) -> Grid<T>) -> Self {
        Self { colours: of(&self.colours), mask: self.mask.as_ref().map(of) }
    }

    /// The median colour of its four edges.
    fn edge(&self) -> Vec<T> {
        let grid = &self.colours;
        let (last_x, last_y) = (grid.width - 1, grid.height - 1);
        let rows = (0..grid.width).flat_map(|x| [(x, 0), (x, last_y)]);
        let columns = (0..grid.height).flat_map(|y| [(0, y), (last_x, y)]);
        let places: Vec<_> = rows.chain(columns).collect();
        let median = |channel: usize| {
            let value = |(x, y): &(usize, usize)| grid.row(*y)[x * grid.channels + channel].float();
            let mut values: Vec<f32> = places.iter().map(value).collect();
            T::cut(median(&mut values))
        };
        (0..grid.channels).map(median).collect()
    }

    fn resized(self, width: usize, height: usize) -> Self {
        let (colours, mask) = (self.colours, self.mask);
        if (colours.width, colours.height) == (width, height) {
            return Self { colours, mask: mask.map(|mask| in_two(&mask)) };
        }
        let (before, after) = (colours.width * colours.height, width * height);
        let count = colours_of(&colours);
        let shape = if count == 2 { Shape::of(&colours) } else { Shape::Picture };
        let how = if (3..MANY).contains(&count) {
            Interpolation::Nearest
        } else if after < before {
            Interpolation::Area
        } else {
            Interpolation::Cubic
        };
        let mut resized = resize(&colours, width, height, how);
        if shape != Shape::Picture {
            let grey = grey(&resized);
            let white = if shape == Shape::Lines {
                thin::thinned(&otsu::in_two(&morphology::ridges(&grey)), after > before)
            } else {
                otsu::in_two(&grey)
            };
            for (to, value) in resized.data.chunks_exact_mut(3).zip(&white.data) {
                to.fill(T::of(f32::from(*value)));
            }
        }
        Self { colours: resized, mask: mask.map(|mask| in_two(&resize(&mask, width, height, how))) }
    }
}

/// What a map of two colours is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Not black and white.
    Picture,
    /// Areas of black and white.
    Areas,
    /// White lines, most of them of one pixel.
    Lines,
}

impl Shape {
    fn of<T: Sample>(map: &Grid<T>) -> Self {
        let values = || map.data.iter().map(|value| value.float());
        let (least, most) =
            values().fold((f32::MAX, f32::MIN), |(least, most), value| (value.min(least), value.max(most)));
        if least >= 16.0 || most <= 240.0 {
            return Self::Picture;
        }
        let opened = morphology::opened(map);
        let narrow = opened.data.iter().zip(&map.data).filter(|(opened, own)| opened < own).count();
        let bright = values().filter(|value| *value > 127.0).count();
        if narrow * 2 > bright { Self::Lines } else { Self::Areas }
    }
}

/// From how many colours on a map is a picture.
const MANY: usize = 200;

/// How many colours there are, up to [`MANY`].
fn colours_of<T: Sample>(map: &Grid<T>) -> usize {
    let mut known = HashSet::new();
    let mut last = None;
    for pixel in map.pixels() {
        let colour = [0, 1, 2].map(|channel| pixel[channel].float().to_bits());
        if last == Some(colour) {
            continue;
        }
        last = Some(colour);
        known.insert(colour);
        if known.len() == MANY {
            break;
        }
    }
    known.len()
}

/// The mean of three channels, cut to whole numbers.
fn grey<T: Sample>(map: &Grid<T>) -> Grid<u8> {
    let mean = |pixel: &[T]| {
        let sum = pixel[0].float() + pixel[1].float() + pixel[2].float();
        (sum / 3.0) as u8
    };
    Grid { width: map.width, height: map.height, channels: 1, data: map.pixels().map(mean).collect() }
}

/// 0 or 255.
fn in_two<T: Sample>(mask: &Grid<T>) -> Grid<T> {
    let white = |value: &T| T::of(if value.float() > 127.0 { 255.0 } else { 0.0 });
    Grid { width: mask.width, height: mask.height, channels: 1, data: mask.data.iter().map(white).collect() }
}

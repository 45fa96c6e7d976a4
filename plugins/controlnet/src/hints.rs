//! Hints: how a unit's picture becomes what its network takes.

use latentd_plugin_api::{Call, Crop, NewTensor, Result};

use crate::pillow;
use crate::preprocessors::hint::{Masked, ResizeMode, check_between, fitted, fitted_masked};
use crate::preprocessors::resolution::pixel_perfect;
use crate::preprocessors::{self, Module, Picture, Settings};

/// Alpha up to which a mask drawn over a picture counts as nothing, and from which on as everything.
const CLEAR: u8 = 5;
const FULL: u8 = 250;

/// A picture that a hint is to be made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    pub picture: Picture,
    /// Where it is to be drawn anew, a number for each pixel.
    pub mask: Option<Vec<u8>>,
    /// How it comes to the size of what is drawn.
    pub mode: ResizeMode,
    /// The part of the user's picture that is drawn, which this is laid over, if only what is masked is drawn.
    pub crop: Option<Crop>,
}

/// A hint over the whole canvas.
#[derive(Clone, Debug, PartialEq)]
pub enum Map {
    Plain(Picture),
    /// With a mask, as inpainting ControlNets take it.
    Masked(Masked),
}

/// Sizes in pixels of what is drawn: of the pass, and of the request's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canvas {
    pub size: (usize, usize),
    pub base: (usize, usize),
}

impl Source {
    /// Without a mask where the module takes none: what was drawn over the picture is the picture then.
    pub fn for_module(self, module: &Module) -> Self {
        if module.mask {
            return self;
        }
        let mask = self.mask.as_ref().filter(|mask| {
            !mask.iter().all(|value| *value <= CLEAR) && !mask.iter().all(|value| *value >= FULL)
        });
        let drawn = mask.map(|mask| mask.iter().flat_map(|value| [*value; 3]).collect());
        let data = drawn.unwrap_or(self.picture.data);
        Self { picture: Picture { data, ..self.picture }, mask: None, ..self }
    }

    /// What is drawn of it, at the size of the pass.
    pub fn cropped(self, size: (usize, usize)) -> Result<Self> {
        let Some(Crop { at, size: part, whole }) = self.crop else { return Ok(self) };
        let mode = self.mode;
        check_between((self.picture.width, self.picture.height), whole, mode)?;
        let cut = |picture: &Picture| {
            let over = pillow::resized(picture, whole.0, whole.1, mode);
            pillow::resized(&pillow::part(&over, at, part), size.0, size.1, ResizeMode::Fill)
        };
        let (width, height) = (self.picture.width, self.picture.height);
        let mask = self.mask.map(|mask| {
            let data = mask.iter().flat_map(|value| [*value; 3]).collect();
            cut(&Picture { width, height, data }).data.iter().step_by(3).copied().collect()
        });
        Ok(Self { picture: cut(&self.picture), mask, mode, crop: None })
    }

    /// The control map of it, and the hint that it makes.
    pub fn hint(
        self,
        module: &Module,
        settings: &Settings,
        is_perfect: bool,
        canvas: Canvas,
    ) -> Result<(Picture, Map)> {
        let Source { picture, mask, mode, .. } = self.for_module(module).cropped(canvas.size)?;
        let (width, height) = canvas.size;
        check_between((picture.width, picture.height), canvas.size, mode)?;
        let resolution = if is_perfect && module.resolution.is_some() {
            pixel_perfect((picture.width, picture.height), canvas.base, mode)
        } else {
            settings.resolution
        };
        let settings = Settings { resolution, ..*settings };
        let made = preprocessors::run(module.name, &picture, &settings)?;
        if module.mask {
            let mask = mask.unwrap_or_else(|| vec![0; picture.width * picture.height]);
            let masked = fitted_masked(&made, &mask, width, height, mode);
            return Ok((fitted(&made, width, height, mode), Map::Masked(masked)));
        }
        let map = fitted(&made, width, height, mode);
        Ok((map.clone(), Map::Plain(map)))
    }
}

impl Map {
    fn size(&self) -> (usize, usize) {
        match self {
            Self::Plain(picture) => (picture.width, picture.height),
            Self::Masked(masked) => (masked.width, masked.height),
        }
    }

    /// Of a pixel the numbers that a network is given, 0 to 1; an inpainting one's are −1 where it is to draw.
    fn pixel(&self, at: usize) -> [f32; 3] {
        match self {
            Self::Plain(picture) => {
                let pixel = picture.data.get(at * 3..at * 3 + 3).unwrap_or(&[0; 3]);
                std::array::from_fn(|channel| f32::from(pixel[channel]) / 255.0)
            }
            Self::Masked(masked) => match masked.data.get(at * 4..at * 4 + 4) {
                Some([.., mask]) if *mask / 255.0 > 0.5 => [-1.0; 3],
                Some([red, green, blue, _]) => [red / 255.0, green / 255.0, blue / 255.0],
                _ => [0.0; 3],
            },
        }
    }

    /// A part of it as a tensor `(1, colours, height, width)`; beyond its borders as at them.
    pub fn tensor<'a>(
        &self,
        call: &Call<'a>,
        colours: usize,
        (left, top): (i64, i64),
        (width, height): (usize, usize),
    ) -> Result<NewTensor<'a>> {
        let own = self.size();
        let mut tensor = call.new_tensor(&[1, colours, height, width])?;
        let values = tensor.values_mut();
        let within = |at: i64, side: usize| at.clamp(0, side as i64 - 1) as usize;
        for y in 0..height {
            for x in 0..width {
                let at = within(top + y as i64, own.1) * own.0 + within(left + x as i64, own.0);
                for (channel, value) in self.pixel(at).into_iter().take(colours).enumerate() {
                    values[(channel * height + y) * width + x] = value;
                }
            }
        }
        Ok(tensor)
    }
}

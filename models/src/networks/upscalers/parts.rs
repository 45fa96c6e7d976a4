//! What the trunk of SwinIR and DAT is made of: the convolutions that residuals go through, and how features become a larger picture.

use super::picture::Bringing;
use super::shuffled::{shuffled_factor, shuffled_scale};
use crate::error::{Error, Result};
use crate::files::Tensors;
use crate::networks::detect::{count, dim};
use crate::nn::{Activations, Conv2d, ConvConfig, Device, Epilogue, Loader, Run, Vector, pixel_shuffle};

/// What leaky `ReLU`s leave of what is below zero; the one before a shuffle has torch's default.
const LEAK: f32 = 0.2;
const LEAK_BEFORE: f32 = 0.01;

/// One convolution, or three of which those within are a quarter as wide.
pub(super) enum ResidualConv {
    One(Conv2d),
    Three(Box<[Conv2d; 3]>, Vector),
}

impl ResidualConv {
    /// Tensors `{name}.weight`, or `{name}.0.weight`, `{name}.2.weight` and `{name}.4.weight`.
    pub(super) fn load(loader: &Loader, name: &str, width: usize, three: bool) -> Result<Self> {
        if !three {
            return Ok(Self::One(Conv2d::load(loader, name, ConvConfig::same(width, width))?));
        }
        let quarter = width / 4;
        let alone =
            ConvConfig { kernel: 1, pad_before: 0, pad_after: 0, ..ConvConfig::same(quarter, quarter) };
        let part = |index: usize, config| Conv2d::load(loader, &format!("{name}.{index}"), config);
        let parts = [
            part(0, ConvConfig::same(width, quarter))?,
            part(2, alone)?,
            part(4, ConvConfig::same(quarter, width))?,
        ];
        Ok(Self::Three(Box::new(parts), leaks(loader, quarter, LEAK)?))
    }

    /// Of `x`, with `residual` added.
    pub(super) fn forward(&self, x: &Activations, residual: &Activations) -> Result<Activations> {
        let add = Epilogue::add(residual);
        match self {
            Self::One(convolution) => convolution.forward_with(x, &add),
            Self::Three(parts, leaks) => {
                let [first, middle, last] = &**parts;
                let leaky = Epilogue { slopes: Some(leaks), ..Epilogue::default() };
                let h = first.forward_with(x, &leaky)?;
                last.forward_with(&middle.forward_with(&h, &leaky)?, &add)
            }
        }
    }
}

fn leaks(loader: &Loader, length: usize, leak: f32) -> Result<Vector> {
    loader.device().vector(vec![leak; length], length)
}

/// How features become a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reconstruction {
    /// By shuffles in a row, each of so much, of so many features.
    Shuffles { features: usize, factors: Vec<usize> },
    /// By one shuffle.
    Direct { scale: usize },
    /// By so many doublings of nearest neighbours.
    Doublings { features: usize, count: usize },
    /// At the picture's own size, to which it is added.
    Same,
}

/// More doublings than any has.
const MOST_STEPS: usize = 4;

impl Reconstruction {
    /// What stands in a file, and the colours that come out.
    pub(super) fn detect(file: &Tensors, prefix: &str, inputs: usize) -> Result<(Self, usize)> {
        let named = |name: &str| format!("{prefix}{name}.weight");
        let has = |name: &str| file.shape(&named(name)).is_some();
        if !has("conv_before_upsample.0") {
            if !has("upsample.0") {
                return Ok((Self::Same, dim(file, &named("conv_last"), 0)?));
            }
            let (scale, outputs) = shuffled_scale(file, &named("upsample.0"), inputs)?;
            return Ok((Self::Direct { scale }, outputs));
        }
        let features = dim(file, &named("conv_before_upsample.0"), 0)?;
        let outputs = dim(file, &named("conv_last"), 0)?;
        if has("conv_up1") {
            let count = (1..=MOST_STEPS).take_while(|index| has(&format!("conv_up{index}"))).count();
            return Ok((Self::Doublings { features, count }, outputs));
        }
        let steps = count(file, |index| format!("{prefix}upsample.{}.", 2 * index));
        if steps > MOST_STEPS {
            let reason = format!("enlarges {steps} times, more than any upscaler");
            return Err(Error::model(file.path(), reason));
        }
        let factor =
            |index: usize| shuffled_factor(file, &named(&format!("upsample.{}", 2 * index)), features);
        let factors = (0..steps).map(factor).collect::<Result<_>>()?;
        Ok((Self::Shuffles { features, factors }, outputs))
    }

    /// How many times as large both sides become.
    pub(super) fn scale(&self) -> usize {
        match self {
            Self::Shuffles { factors, .. } => factors.iter().product(),
            Self::Direct { scale } => *scale,
            Self::Doublings { count, .. } => 1 << count,
            Self::Same => 1,
        }
    }
}

/// The layers of it.
pub(super) enum Reconstructor {
    Shuffles {
        before: Conv2d,
        leaks: Vector,
        steps: Vec<(Conv2d, usize)>,
        last: Conv2d,
    },
    Direct {
        last: Conv2d,
        scale: usize,
    },
    Doublings {
        before: Conv2d,
        before_leaks: Vector,
        steps: Vec<Conv2d>,
        large: Conv2d,
        last: Conv2d,
        leaks: Vector,
    },
    Same {
        last: Conv2d,
    },
}

impl Reconstructor {
    /// Reads them; `width` is that of features.
    pub(super) fn load(
        loader: &Loader,
        prefix: &str,
        what: &Reconstruction,
        (width, outputs): (usize, usize),
    ) -> Result<Self> {
        let named = |name: &str| format!("{prefix}{name}");
        let load = |name: &str, inputs, outputs| {
            Conv2d::load(loader, &named(name), ConvConfig::same(inputs, outputs))
        };
        Ok(match what {
            Reconstruction::Shuffles { features, factors } => {
                let step = |(index, factor): (usize, &usize)| {
                    let config = ConvConfig::same(*features, features * factor * factor);
                    let name = named(&format!("upsample.{}", 2 * index));
                    Ok((Conv2d::load_shuffled(loader, &name, config, *factor)?, *factor))
                };
                Self::Shuffles {
                    before: load("conv_before_upsample.0", width, *features)?,
                    leaks: leaks(loader, *features, LEAK_BEFORE)?,
                    steps: factors.iter().enumerate().map(step).collect::<Result<_>>()?,
                    last: load("conv_last", *features, outputs)?,
                }
            }
            Reconstruction::Direct { scale } => {
                let config = ConvConfig::same(width, outputs * scale * scale);
                Self::Direct {
                    last: Conv2d::load_shuffled(loader, &named("upsample.0"), config, *scale)?,
                    scale: *scale,
                }
            }
            Reconstruction::Doublings { features, count } => {
                let step = |index: usize| {
                    let config = ConvConfig { upsample: 2, ..ConvConfig::same(*features, *features) };
                    Conv2d::load(loader, &named(&format!("conv_up{}", index + 1)), config)
                };
                Self::Doublings {
                    before: load("conv_before_upsample.0", width, *features)?,
                    before_leaks: leaks(loader, *features, LEAK_BEFORE)?,
                    steps: (0..*count).map(step).collect::<Result<_>>()?,
                    large: load("conv_hr", *features, *features)?,
                    last: load("conv_last", *features, outputs)?,
                    leaks: leaks(loader, *features, LEAK)?,
                }
            }
            Reconstruction::Same => Self::Same { last: load("conv_last", width, outputs)? },
        })
    }

    /// Of features, and of the picture as it came in.
    pub(super) fn forward(
        &self,
        features: &Activations,
        picture: &Activations,
        device: &Device,
        run: &Run,
    ) -> Result<Activations> {
        run.enter(device, format_args!("upscaler.last"))?;
        let wide = Epilogue::widened();
        let leaky = |leaks| Epilogue { slopes: Some(leaks), ..Epilogue::default() };
        match self {
            Self::Shuffles { before, leaks, steps, last } => {
                let mut h = before.forward_with(features, &leaky(leaks))?;
                for (step, factor) in steps {
                    h = pixel_shuffle(device, &step.forward(&h)?, *factor)?;
                    run.enter(device, format_args!("upscaler.up"))?;
                }
                last.forward_with(&h, &wide)
            }
            Self::Direct { last, scale } => {
                pixel_shuffle(device, &last.forward_with(features, &wide)?, *scale)
            }
            Self::Doublings { before, before_leaks, steps, large, last, leaks } => {
                let mut h = before.forward_with(features, &leaky(before_leaks))?;
                for step in steps {
                    h = step.forward_with(&h, &leaky(leaks))?;
                    run.enter(device, format_args!("upscaler.up"))?;
                }
                last.forward_with(&large.forward_with(&h, &leaky(leaks))?, &wide)
            }
            Self::Same { last } => last.forward_with(features, &Epilogue { residual: Some(picture), ..wide }),
        }
    }
}

/// As SwinIR and DAT take pictures, filled up to a multiple.
pub(super) fn normal(multiple: usize, unshuffle: usize, range: f32, inputs: usize) -> Bringing {
    let mean = if inputs == 3 { super::picture::MEAN } else { [0.0; 3] };
    Bringing { multiple, unshuffle, mean, range, restored: true }
}

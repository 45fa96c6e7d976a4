//! The compact Real-ESRGAN (`SRVGGNetCompact`): one row of convolutions at the picture's own size, and a shuffle of pixels.
//!
//! Source: github.com/xinntao/Real-ESRGAN. What it makes is added to the picture itself, enlarged by nearest neighbour. Its
//! activations are `PReLU`s as a rule; those without weights are told by `act_type` in what the file says of itself.

use super::kind::{Facts, UpscalerNetwork};
use super::picture::Bringing;
use super::shuffled::shuffled_scale;
use crate::error::{Error, Result};
use crate::files::Tensors;
use crate::networks::detect::{count, dim};
use crate::nn::{
    Activations, Conv2d, ConvConfig, Device, Epilogue, Loader, Run, Vector, add, pixel_shuffle,
    resized_nearest,
};

/// What BasicSR's leaky `ReLU` leaves of what is below zero.
const LEAK: f32 = 0.1;

/// What follows convolutions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Between {
    Prelu,
    Relu,
    LeakyRelu,
}

/// What can be told from the tensors.
pub(in crate::networks) struct Config {
    inputs: usize,
    outputs: usize,
    width: usize,
    /// Convolutions, the last one among them.
    convolutions: usize,
    scale: usize,
    between: Between,
}

/// The network.
pub(in crate::networks) struct Compact {
    /// Each with what is left of numbers below zero after it.
    row: Vec<(Conv2d, Vector)>,
    last: Conv2d,
    scale: usize,
}

impl UpscalerNetwork for Compact {
    const KIND: &'static str = "compact";

    type Config = Config;

    fn is_in(file: &Tensors, prefix: &str) -> bool {
        let shape = |name: &str| file.shape(&format!("{prefix}body.{name}.weight"));
        match (shape("0"), shape("2")) {
            (Some([width, 1 | 3 | 4, 3, 3]), Some([_, inputs, 3, 3])) => inputs == width,
            _ => false,
        }
    }

    fn config(file: &Tensors, prefix: &str) -> Result<Config> {
        let name = |index: usize| format!("{prefix}body.{index}");
        let convolutions = count(file, |index| format!("{}.", name(2 * index)));
        let inputs = dim(file, &format!("{}.weight", name(0)), 1)?;
        let last = name(2 * convolutions.saturating_sub(1));
        let (scale, outputs) = shuffled_scale(file, &format!("{last}.weight"), inputs)?;
        let has_slopes = file.has_under(&format!("{}.", name(1)));
        let told = file.metadata().get("act_type").map(String::as_str);
        let between = match told {
            _ if has_slopes => Between::Prelu,
            Some("relu") => Between::Relu,
            Some("leakyrelu") => Between::LeakyRelu,
            _ => {
                let reason = format!(
                    "has no {}.weight, so that its activations are ReLU or LeakyReLU; which of them must be told by 'act_type' \
                     (\"relu\" or \"leakyrelu\") beside its tensors",
                    name(1)
                );
                return Err(Error::model(file.path(), reason));
            }
        };
        let width = dim(file, &format!("{}.weight", name(0)), 0)?;
        Ok(Config { inputs, outputs, width, convolutions, scale, between })
    }

    fn facts(config: &Config) -> Facts {
        let Config { scale, inputs, outputs, .. } = *config;
        Facts { scale, inputs, outputs, bringing: Bringing::PLAIN }
    }

    fn load(loader: &Loader, prefix: &str, config: &Config) -> Result<Self> {
        let Config { inputs, outputs, width, convolutions, scale, between } = *config;
        let name = |index: usize| format!("{prefix}body.{index}");
        let constant = |share: f32| loader.device().vector(vec![share; width], width);
        let slopes = |index: usize| match between {
            Between::Prelu => loader.vector(&format!("{}.weight", name(2 * index + 1)), width),
            Between::Relu => constant(0.0),
            Between::LeakyRelu => constant(LEAK),
        };
        let convolution = |index: usize| {
            let loaded = if index == 0 {
                Conv2d::load_f32(loader, &name(0), ConvConfig::same(inputs, width))
            } else {
                Conv2d::load(loader, &name(2 * index), ConvConfig::same(width, width))
            };
            Ok((loaded?, slopes(index)?))
        };
        let last = ConvConfig::same(width, outputs * scale * scale);
        Ok(Self {
            row: (0..convolutions.saturating_sub(1)).map(convolution).collect::<Result<_>>()?,
            last: Conv2d::load_shuffled(loader, &name(2 * convolutions.saturating_sub(1)), last, scale)?,
            scale,
        })
    }

    fn forward(&self, x: Activations, device: &Device, run: &Run) -> Result<Activations> {
        let (_, height, width, colours) = x.dims4()?;
        let mut h = x.clone();
        for (index, (convolution, slopes)) in self.row.iter().enumerate() {
            run.enter(device, format_args!("compact.{index}"))?;
            h = convolution.forward_with(&h, &Epilogue { slopes: Some(slopes), ..Epilogue::default() })?;
            if index == 0 {
                h = device.convert(&h, self.last.precision())?;
            }
        }
        run.enter(device, format_args!("compact.last"))?;
        let made = self.last.forward_with(&h, &Epilogue::widened())?;
        drop(h);
        let made = pixel_shuffle(device, &made, self.scale)?;
        let itself = resized_nearest(device, &x, height * self.scale, width * self.scale)?;
        if colours == 1 && made.channels() > 1 {
            // One grey for all colours.
            let mut all = itself.clone();
            for _ in 1..made.channels() {
                all = crate::nn::cat_channels(device, &all, &itself)?;
            }
            return add(device, &made, &all);
        }
        add(device, &made, &itself)
    }
}

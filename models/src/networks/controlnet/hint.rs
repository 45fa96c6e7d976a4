//! A ControlNet's stem: a row of convolutions with `SiLU` between them that makes a picture as small as latents are.

use crate::error::{Error, Result};
use crate::files::Tensors;
use crate::networks::detect::{count, dim};
use crate::nn::{Activation, Activations, Conv2d, ConvConfig, Device, Epilogue, Loader, Run};

/// Pixels to a latent, each way.
pub(super) const DOWN: usize = 1 << HALVINGS;

const HALVINGS: usize = 3;

/// Inputs of each convolution, and what comes out of the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HintConfig {
    prefix: String,
    widths: Vec<usize>,
}

/// The layers.
pub(super) struct Hint(Vec<Conv2d>);

impl HintConfig {
    /// Of the tensors under `prefix`, which ends with a dot: every second layer is a convolution.
    pub(super) fn detect(file: &Tensors, prefix: &str) -> Result<Self> {
        let layer = |index: usize| format!("{prefix}{}.", 2 * index);
        let layers = count(file, layer);
        let mut widths = vec![];
        for index in 0..layers {
            widths.push(dim(file, &format!("{}weight", layer(index)), 1)?);
        }
        widths.push(dim(file, &format!("{}weight", layer(layers.saturating_sub(1))), 0)?);
        let halvings = (0..layers).filter(|index| stride(*index, layers) == 2).count();
        if halvings != HALVINGS {
            let reason = format!(
                "{prefix}: {layers} convolutions halve a picture {halvings} times; {HALVINGS} make it {DOWN} times smaller"
            );
            return Err(Error::model(file.path(), reason));
        }
        Ok(Self { prefix: prefix.to_owned(), widths })
    }

    /// Colours that go in.
    pub(super) fn colours(&self) -> usize {
        self.widths.first().copied().unwrap_or_default()
    }

    /// Channels that come out.
    pub(super) fn outputs(&self) -> usize {
        self.widths.last().copied().unwrap_or_default()
    }
}

/// All but the first and the last come in pairs: one that keeps the size, and one that halves it.
fn stride(index: usize, layers: usize) -> usize {
    if index > 0 && index + 1 < layers && index.is_multiple_of(2) { 2 } else { 1 }
}

impl Hint {
    /// In f32 throughout: it runs once for a picture, and all steps rely on it.
    pub(super) fn load(loader: &Loader, config: &HintConfig) -> Result<Self> {
        let layers = config.widths.len().saturating_sub(1);
        let pairs = config.widths.iter().zip(config.widths.iter().skip(1));
        let load = |(index, (inputs, outputs)): (usize, (&usize, &usize))| {
            let size = ConvConfig { stride: stride(index, layers), ..ConvConfig::same(*inputs, *outputs) };
            Conv2d::load_f32(loader, &format!("{}{}", config.prefix, 2 * index), size)
        };
        Ok(Self(pairs.enumerate().map(load).collect::<Result<_>>()?))
    }

    /// `(1, 8 · height, 8 · width, colours)` of 0…1 → `(1, height, width, channels)`, f32.
    pub(super) fn forward(&self, device: &Device, x: Activations, run: &Run) -> Result<Activations> {
        let mut h = x;
        for (index, layer) in self.0.iter().enumerate() {
            run.enter(device, format_args!("controlnet.hint.{index}"))?;
            let activation = if index + 1 < self.0.len() { Activation::Silu } else { Activation::None };
            h = layer.forward_with(&h, &Epilogue { activation, ..Epilogue::default() })?;
        }
        Ok(h)
    }
}

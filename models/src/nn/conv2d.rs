//! Convolutions.

use super::backend::{Activations, ConvConfig, Device, Epilogue, Layout, Matrix, Precision, Vector};
use super::loader::Loader;
use super::norm::GroupNorm;
use crate::error::{Result, bail};
use latentd_kernels::{Weights, Wrap};

/// A convolution over `(batch, height, width, channels)`. A copy shares its weights.
#[derive(Clone)]
pub struct Conv2d {
    device: Device,
    config: ConvConfig,
    weight: Matrix,
    bias: Option<Vector>,
}

impl Conv2d {
    /// Tensors `{name}.weight` and `{name}.bias`; computed in the loader's precision.
    pub fn load(loader: &Loader, name: &str, config: ConvConfig) -> Result<Self> {
        Self::in_precision(loader, name, config, loader.precision())
    }

    /// Tensor `{name}.weight` alone.
    pub fn load_unbiased(loader: &Loader, name: &str, config: ConvConfig) -> Result<Self> {
        let weight = Self::weight(loader, name, config, loader.precision())?;
        Ok(Self { device: loader.device().clone(), config, weight, bias: None })
    }

    /// Computed in f32 in any case: where what comes in is f32 and has few channels.
    pub fn load_f32(loader: &Loader, name: &str, config: ConvConfig) -> Result<Self> {
        Self::in_precision(loader, name, config, Precision::F32)
    }

    /// Of numbers that were made of several tensors of a layer `name`, in a file's order; none where nothing is computed. In the
    /// loader's precision.
    pub fn of_numbers(
        loader: &Loader,
        name: &str,
        config: ConvConfig,
        weight: &[f32],
        bias: Vec<f32>,
    ) -> Result<Self> {
        let ConvConfig { inputs, outputs, kernel, .. } = config;
        let layout = Layout::Convolution { outputs, inputs, kernel };
        let packed = loader.device().matrix(layout, loader.precision(), Weights::of(weight))?;
        let weight = packed.map_err(|error| loader.refusal(&format!("what {name} makes {error}")))?;
        let bias = Some(loader.device().vector(bias, outputs)?);
        Ok(Self { device: loader.device().clone(), config, weight, bias })
    }

    /// With bias, whose outputs [`super::pixel_shuffle`] takes: the file has them as torch's `PixelShuffle` does, all places of
    /// a channel together; here all channels of a place are.
    pub fn load_shuffled(loader: &Loader, name: &str, config: ConvConfig, factor: usize) -> Result<Self> {
        let ConvConfig { inputs, outputs, kernel, .. } = config;
        let places = factor * factor;
        let Some(channels) = outputs.checked_div(places).filter(|channels| channels * places == outputs)
        else {
            bail!("convolution: {outputs} outputs cannot be shuffled by {factor}");
        };
        let order = |output: usize| output % channels * places + output / channels;
        let layout = Layout::Convolution { outputs, inputs, kernel };
        let weight = loader.matrix_in_order(&format!("{name}.weight"), layout, loader.precision(), &order)?;
        let bias = Some(loader.vector_in_order(&format!("{name}.bias"), outputs, &order)?);
        Ok(Self { device: loader.device().clone(), config, weight, bias })
    }

    fn in_precision(loader: &Loader, name: &str, config: ConvConfig, precision: Precision) -> Result<Self> {
        let weight = Self::weight(loader, name, config, precision)?;
        let bias = Some(loader.vector(&format!("{name}.bias"), config.outputs)?);
        Ok(Self { device: loader.device().clone(), config, weight, bias })
    }

    fn weight(loader: &Loader, name: &str, config: ConvConfig, precision: Precision) -> Result<Matrix> {
        let ConvConfig { inputs, outputs, kernel, .. } = config;
        loader.matrix(&format!("{name}.weight"), Layout::Convolution { outputs, inputs, kernel }, precision)
    }

    /// What it computes in.
    pub fn precision(&self) -> Precision {
        self.weight.precision
    }

    /// Makes it go on beyond the border with the other end.
    pub fn set_wrap(&mut self, wrap: Wrap) {
        self.config.wrap = wrap;
    }

    /// `(batch, height, width, inputs) → (batch, rows, columns, outputs)`.
    pub fn forward(&self, x: &Activations) -> Result<Activations> {
        self.run(x, None, &Epilogue::default())
    }

    /// As [`Self::forward`], finished by `epilogue`.
    pub fn forward_with(&self, x: &Activations, epilogue: &Epilogue) -> Result<Activations> {
        self.run(x, None, epilogue)
    }

    /// As [`Self::forward`] of `x` after a norm and SiLU, finished by `epilogue`.
    pub fn forward_normed(
        &self,
        norm: &GroupNorm,
        x: &Activations,
        epilogue: &Epilogue,
    ) -> Result<Activations> {
        self.run(x, Some(norm), epilogue)
    }

    fn run(&self, x: &Activations, norm: Option<&GroupNorm>, epilogue: &Epilogue) -> Result<Activations> {
        let (batch, height, width, channels) = x.dims4()?;
        let ConvConfig { inputs, outputs, kernel, stride, pad_before, pad_after, upsample, wrap: _ } =
            self.config;
        if channels != inputs {
            bail!("convolution: input {:?} has not {inputs} channels", x.dims());
        }
        let size = |side: usize| (side * upsample + pad_before + pad_after).checked_sub(kernel);
        let (Some(rows), Some(columns)) = (size(height), size(width)) else {
            bail!("convolution: input {:?} is smaller than the kernel", x.dims());
        };
        let dims = [batch, rows / stride + 1, columns / stride + 1, outputs];
        epilogue.check(&dims)?;
        let epilogue = Epilogue { bias: self.bias.as_ref(), ..*epilogue };
        let norm = norm.map(|norm| norm.silu(x)).transpose()?;
        self.device.convolution(x, norm.as_ref(), &self.weight, &self.config, &epilogue, &dims)
    }
}

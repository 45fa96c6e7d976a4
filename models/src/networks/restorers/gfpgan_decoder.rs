//! GFPGAN's generator: a `StyleGAN2` whose layers a style modulates, and of whose channels half are steered by what was seen of the
//! face.
//!
//! Source: Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN"; the spatial feature transform is GFPGAN's.
//! Modulating the weights of a convolution is the same as modulating what goes in; its demodulation as much of what comes out, so
//! that weights stay as they are.

use super::parts::{alone, doubled, leaky, spread};
use crate::error::{Result, bail};
use crate::nn::{
    Activations, Conv2d, ConvConfig, Device, Epilogue, Linear, Loader, Precision, Run, add, cat_channels,
    multiply,
};
use crate::tensor::Tensor;

/// Added to what a demodulation divides by the root of.
const EPSILON: f64 = 1e-8;

/// The side that it begins with.
const FIRST: usize = 4;

/// A convolution of what a style modulates.
struct Modulated {
    modulation: Linear,
    convolution: Conv2d,
    inputs: usize,
    /// `(outputs, inputs)`: the sum of a kernel's squares; none where nothing is demodulated.
    squares: Option<Vec<f32>>,
    precision: Precision,
}

impl Modulated {
    fn load(loader: &Loader, name: &str, style: usize, config: ConvConfig, bias: Vec<f32>) -> Result<Self> {
        let ConvConfig { inputs, outputs, kernel, .. } = config;
        let name = format!("{name}.modulated_conv");
        let shape = [1, outputs, inputs, kernel, kernel];
        let weight = loader.numbers(&format!("{name}.weight"), &shape)?;
        let of_kernel = |kernel: &[f32]| kernel.iter().map(|weight| weight * weight).sum();
        let squares = (kernel > 1).then(|| weight.chunks_exact(kernel * kernel).map(of_kernel).collect());
        let weight = if loader.device().computes() { &weight[..] } else { &[] };
        Ok(Self {
            modulation: Linear::load_f32(loader, &format!("{name}.modulation"), style, inputs)?,
            convolution: Conv2d::of_numbers(loader, &name, config, weight, bias)?,
            inputs,
            squares,
            precision: loader.precision(),
        })
    }

    /// `x` as the style wants it, and what each of its channels was multiplied by.
    fn modulate(&self, device: &Device, x: &Activations, style: &[f32]) -> Result<(Activations, Vec<f32>)> {
        let (_, height, width, _) = x.dims4()?;
        let factors = self.modulation.forward(&device.upload(style, &[1, style.len()])?)?;
        let factors = device.download(&factors)?;
        let spread = spread(device, &factors, (height, width), self.precision)?;
        Ok((multiply(device, x, &spread)?, factors))
    }

    /// What outputs are multiplied by for these factors of inputs, √2 with it.
    fn demodulation(&self, factors: &[f32]) -> Vec<f32> {
        let of_output = |squares: &[f32]| {
            let term = |(square, factor): (&f32, &f32)| f64::from(*square) * f64::from(*factor).powi(2);
            let sum: f64 = squares.iter().zip(factors).map(term).sum();
            ((2.0 / (sum + EPSILON)).sqrt()) as f32
        };
        self.squares.iter().flat_map(|squares| squares.chunks_exact(self.inputs)).map(of_output).collect()
    }
}

/// A modulated convolution, noise, and a leaky `ReLU`.
struct StyleConv {
    modulated: Modulated,
    doubles: bool,
    /// Noise that goes on as each channel takes it, with their biases.
    noised: Conv2d,
    noise: Vec<f32>,
    side: usize,
}

impl StyleConv {
    /// Of `(style, inputs, outputs)` numbers; `name` is the decoder's, `of` the layer's own, `index` its noise's.
    fn load(
        loader: &Loader,
        (name, of, index): (&str, &str, usize),
        (style, inputs, outputs): (usize, usize, usize),
        doubles: bool,
    ) -> Result<Self> {
        let layer = format!("{name}.{of}");
        let side = FIRST << index.div_ceil(2);
        let bias = loader.numbers(&format!("{layer}.bias"), &[1, outputs, 1, 1])?;
        let strength = loader.numbers(&format!("{layer}.weight"), &[1])?;
        let weight = vec![strength.first().copied().unwrap_or_default(); outputs];
        let weight = if loader.device().computes() { &weight[..] } else { &[] };
        let config = ConvConfig::same(inputs, outputs);
        Ok(Self {
            modulated: Modulated::load(loader, &layer, style, config, vec![0.0; outputs])?,
            doubles,
            noised: Conv2d::of_numbers(loader, &layer, alone(1, outputs), weight, bias)?,
            noise: loader.numbers(&format!("{name}.noises.noise{index}"), &[1, 1, side, side])?,
            side,
        })
    }

    fn forward(&self, device: &Device, x: &Activations, style: &[f32]) -> Result<Activations> {
        let (side, precision) = (self.side, self.modulated.precision);
        let (mut h, factors) = self.modulated.modulate(device, x, style)?;
        if self.doubles {
            h = doubled(device, &h)?;
        }
        h = self.modulated.convolution.forward(&h)?;
        let outputs = self.modulated.demodulation(&factors);
        h = multiply(device, &h, &spread(device, &outputs, (side, side), precision)?)?;
        let noise = device.convert(&device.upload(&self.noise, &[1, side, side, 1])?, precision)?;
        leaky(device, &self.noised.forward_with(&noise, &Epilogue::add(&h))?)
    }
}

/// The generator.
pub(super) struct Decoder {
    constant: Tensor,
    first: StyleConv,
    first_colours: Modulated,
    levels: Vec<(StyleConv, StyleConv, Modulated)>,
    precision: Precision,
}

impl Decoder {
    /// Of `generator` channels, at the deepest and after each doubling, and of styles of `style` numbers.
    pub(super) fn load(loader: &Loader, name: &str, generator: &[usize], style: usize) -> Result<Self> {
        let wide = generator.first().copied().unwrap_or_default();
        let colours = |layer: &str, inputs: usize| {
            let layer = format!("{name}.{layer}");
            let bias = loader.numbers(&format!("{layer}.bias"), &[1, 3, 1, 1])?;
            Modulated::load(loader, &layer, style, alone(inputs, 3), bias)
        };
        let level = |(level, sizes): (usize, &[usize])| {
            let [inputs, outputs] = *sizes else { bail!("a level of {sizes:?}") };
            let (before, after) = (2 * level, 2 * level + 1);
            let layer = |index: usize, inputs| {
                let of = format!("style_convs.{index}");
                StyleConv::load(loader, (name, &of, index + 1), (style, inputs, outputs), index == before)
            };
            Ok((
                layer(before, inputs)?,
                layer(after, outputs)?,
                colours(&format!("to_rgbs.{level}"), outputs)?,
            ))
        };
        let constant = loader.numbers(&format!("{name}.constant_input.weight"), &[1, wide, FIRST, FIRST])?;
        Ok(Self {
            constant: Tensor::new(constant, [1, wide, FIRST, FIRST])?.to_channels_last()?,
            first: StyleConv::load(loader, (name, "style_conv1", 0), (style, wide, wide), false)?,
            first_colours: colours("to_rgb1", wide)?,
            levels: generator.windows(2).enumerate().map(level).collect::<Result<_>>()?,
            precision: loader.precision(),
        })
    }

    /// Of the styles of its layers, and the factors and what is added of each level's later half of channels: a face `(1, side,
    /// side, 3)` f32.
    pub(super) fn forward(
        &self,
        styles: &[&[f32]],
        conditions: Vec<(Activations, Activations)>,
        device: &Device,
        run: &Run,
    ) -> Result<Activations> {
        let style = |index: usize| match styles.get(index) {
            Some(style) => Ok(*style),
            None => bail!("no style {index}"),
        };
        run.enter(device, format_args!("gfpgan.first_style"))?;
        let constant = device.upload(self.constant.values(), self.constant.dims())?;
        let mut h = self.first.forward(device, &device.convert(&constant, self.precision)?, style(0)?)?;
        let (coloured, _) = self.first_colours.modulate(device, &h, style(1)?)?;
        let mut face = self.first_colours.convolution.forward_with(&coloured, &Epilogue::widened())?;
        for (index, ((first, second, colours), (factor, shift))) in
            self.levels.iter().zip(conditions).enumerate()
        {
            run.enter(device, format_args!("gfpgan.style{index}"))?;
            h = first.forward(device, &h, style(2 * index + 1)?)?;
            let (batch, height, width, channels) = h.dims4()?;
            let halves = h.reshaped([batch * height * width * 2, channels / 2])?;
            let half = |which: usize| {
                device.rows(&halves, &[batch, height, width, channels / 2], &|at| 2 * at + which)
            };
            let steered = add(device, &multiply(device, &half(1)?, &factor)?, &shift)?;
            h = cat_channels(device, &half(0)?, &steered)?;
            drop((halves, steered, factor, shift));
            h = second.forward(device, &h, style(2 * index + 2)?)?;
            let (coloured, _) = colours.modulate(device, &h, style(2 * index + 3)?)?;
            face = colours.convolution.forward_with(&coloured, &Epilogue::add(&doubled(device, &face)?))?;
        }
        Ok(face)
    }
}

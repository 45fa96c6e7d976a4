//! SwinIR: attention within windows that are shifted by half from block to block.
//!
//! Source: Liang et al. 2021, "SwinIR: Image Restoration Using Swin Transformer"; github.com/JingyunLiang/SwinIR. What a file is for
//! shows in its last layers. Windows of 7, which only the one against JPEG has, mean colours of 0…255.

use super::kind::{Facts, UpscalerNetwork};
use super::parts::{Reconstruction, normal};
use super::trunk::{Block, Trunk, TrunkConfig};
use crate::error::{Error, Result};
use crate::files::Tensors;
use crate::networks::detect::{count, dim};
use crate::nn::{
    Activations, Device, Epilogue, Heads, LayerNorm, Linear, Loader, Pointwise, Precision, Run, Windows,
    attention_in_windows, of_distances,
};

/// The side of windows whose networks have seen colours of 0…255.
const WINDOW_OF_JPEG: usize = 7;

/// Sides of windows that there may be.
const MOST_WINDOW: usize = 16;

/// What can be told from the tensors.
pub(in crate::networks) struct Config {
    /// "conv_first", or "conv_first.1" after squares of pixels became channels.
    first: &'static str,
    inputs: usize,
    unshuffle: usize,
    outputs: usize,
    width: usize,
    hidden: usize,
    window: usize,
    /// Blocks and heads of each group.
    groups: Vec<(usize, usize)>,
    /// Whether residuals go through three convolutions.
    three: bool,
    reconstruction: Reconstruction,
}

/// The network.
pub(in crate::networks) struct SwinIr(Trunk<WindowBlock>);

struct WindowBlock {
    norm1: LayerNorm,
    qkv: Linear,
    heads: Heads,
    windows: Windows,
    bias: Vec<f32>,
    projected: Linear,
    norm2: LayerNorm,
    wide: Linear,
    narrow: Linear,
}

impl WindowBlock {
    fn load(loader: &Loader, name: &str, config: &Config, heads: usize, is_shifted: bool) -> Result<Self> {
        let Config { width, hidden, window, .. } = *config;
        let sides = 2 * window - 1;
        let table = format!("{name}.attn.relative_position_bias_table");
        let table = loader.numbers(&table, &[sides * sides, heads])?;
        let of_distance = |row, column, head| table[(row * sides + column) * heads + head];
        let named = |part: &str| format!("{name}.{part}");
        Ok(Self {
            norm1: LayerNorm::load(loader, &named("norm1"), width)?,
            qkv: Linear::load(loader, &named("attn.qkv"), width, 3 * width)?,
            heads: Heads { first: 0, count: heads, width: width / heads },
            windows: Windows {
                rows: window,
                columns: window,
                shift: is_shifted.then_some((window / 2, window / 2)),
                multiple: window,
            },
            bias: of_distances(window, window, heads, of_distance),
            projected: Linear::load(loader, &named("attn.proj"), width, width)?,
            norm2: LayerNorm::load(loader, &named("norm2"), width)?,
            wide: Linear::load(loader, &named("mlp.fc1"), width, hidden)?,
            narrow: Linear::load(loader, &named("mlp.fc2"), hidden, width)?,
        })
    }
}

impl Block for WindowBlock {
    fn forward(&self, x: &Activations, precision: Precision, device: &Device) -> Result<Activations> {
        let qkv = self.qkv.forward(&self.norm1.forward(x, precision)?)?;
        let seen = attention_in_windows(device, &qkv, self.heads, self.windows, &self.bias)?;
        let x = self.projected.forward_with(&seen, &Epilogue::add(x))?;
        let wide = self.wide.forward(&self.norm2.forward(&x, precision)?)?;
        self.narrow.forward_with(&device.pointwise(&wide, Pointwise::Gelu)?, &Epilogue::add(&x))
    }
}

impl UpscalerNetwork for SwinIr {
    const KIND: &'static str = "swinir";

    type Config = Config;

    fn is_in(file: &Tensors, prefix: &str) -> bool {
        let has = |name: &str| file.shape(&format!("{prefix}{name}")).is_some();
        let block = "layers.0.residual_group.blocks.0";
        has(&format!("{block}.norm1.weight"))
            && has(&format!("{block}.attn.relative_position_bias_table"))
            && (has("conv_first.weight") || has("conv_first.1.weight"))
    }

    fn config(file: &Tensors, prefix: &str) -> Result<Config> {
        let size = |name: &str, index: usize| dim(file, &format!("{prefix}{name}"), index);
        let has = |name: &str| file.shape(&format!("{prefix}{name}")).is_some();
        let first = if has("conv_first.weight") { "conv_first" } else { "conv_first.1" };
        let weight = format!("{first}.weight");
        let (width, channels) = (size(&weight, 0)?, size(&weight, 1)?);
        let unshuffle = if first == "conv_first" { 1 } else { (channels / 3).isqrt().max(1) };
        let inputs = channels / (unshuffle * unshuffle);
        let group = |group: usize| format!("layers.{group}.residual_group.blocks.");
        let table = |index: usize| format!("{}0.attn.relative_position_bias_table", group(index));
        let distances = size(&table(0), 0)?;
        let window = distances.isqrt().div_ceil(2);
        if (2 * window - 1).pow(2) != distances || window > MOST_WINDOW {
            let reason =
                format!("tensor {prefix}{} has {distances} distances, which no window has", table(0));
            return Err(Error::model(file.path(), reason));
        }
        let groups = count(file, |index| format!("{prefix}layers.{index}."));
        let of_group = |index: usize| {
            let blocks = count(file, |block| format!("{prefix}{}{block}.", group(index)));
            let heads = size(&table(index), 1)?;
            if !width.is_multiple_of(heads) {
                let reason =
                    format!("tensor {prefix}{} has {heads} heads for {width} channels", table(index));
                return Err(Error::model(file.path(), reason));
            }
            Ok((blocks, heads))
        };
        let groups = (0..groups).map(of_group).collect::<Result<_>>()?;
        let (reconstruction, outputs) = Reconstruction::detect(file, prefix, inputs)?;
        if reconstruction.scale() % unshuffle != 0 {
            let reason = format!(
                "takes {channels} channels and enlarges {} times: it is no upscaler",
                reconstruction.scale()
            );
            return Err(Error::model(file.path(), reason));
        }
        let hidden = size(&format!("{}0.mlp.fc1.weight", group(0)), 0)?;
        let three = has("conv_after_body.0.weight");
        Ok(Config { first, inputs, unshuffle, outputs, width, hidden, window, groups, three, reconstruction })
    }

    fn facts(config: &Config) -> Facts {
        let Config { inputs, outputs, unshuffle, window, .. } = *config;
        let range = if window == WINDOW_OF_JPEG { 255.0 } else { 1.0 };
        let bringing = normal(window * unshuffle, unshuffle, range, inputs);
        Facts { scale: config.reconstruction.scale() / unshuffle, inputs, outputs, bringing }
    }

    fn load(loader: &Loader, prefix: &str, config: &Config) -> Result<Self> {
        let trunk = TrunkConfig {
            first: config.first,
            before: "patch_embed.norm",
            channels: config.inputs * config.unshuffle * config.unshuffle,
            width: config.width,
            groups: &config.groups,
            three: config.three,
            reconstruction: &config.reconstruction,
            outputs: config.outputs,
        };
        let trunk = Trunk::load(loader, prefix, &trunk, |group, place| {
            let name = format!("{group}.residual_group.blocks.{}", place.block);
            WindowBlock::load(loader, &name, config, place.heads, place.block % 2 == 1)
        });
        Ok(Self(trunk?))
    }

    fn may_be_left(name: &str) -> bool {
        name.ends_with(".relative_position_index") || name.ends_with(".attn_mask")
    }

    fn forward(&self, x: Activations, device: &Device, run: &Run) -> Result<Activations> {
        self.0.forward(&x, Self::KIND, device, run)
    }
}

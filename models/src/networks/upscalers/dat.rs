//! DAT: attention within windows and between channels in turns, each beside a convolution of every channel by itself.
//!
//! Source: Chen et al. 2023, "Dual Aggregation Transformer for Image Super-Resolution"; github.com/zhengchen1999/DAT. Half of the
//! channels see windows of some rows and columns, the other half those turned by a quarter.

use super::dat_host::{Depthwise, Extent, Interaction, Norm, attention_of_channels, gated, gelu_all};
use super::kind::{Facts, UpscalerNetwork};
use super::parts::{Reconstruction, normal};
use super::trunk::{Block, Place, Trunk, TrunkConfig};
use crate::error::{Error, Result};
use crate::files::Tensors;
use crate::networks::detect::{count, dim};
use crate::nn::{
    Activations, Device, Epilogue, Heads, LayerNorm, Linear, Loader, Pointwise, Precision, Run, Windows,
    attention_in_windows, cat_channels, of_distances,
};

/// Sides of windows that there may be, and their pixels.
const MOST_WINDOW: usize = 64;
const MOST_PIXELS: usize = 256;

/// Channels that the network of distances is a thirty-second of, and at least 1.
const NARROWEST: usize = 32;

/// What can be told from the tensors.
pub(in crate::networks) struct Config {
    inputs: usize,
    outputs: usize,
    width: usize,
    hidden: usize,
    /// Rows and columns of windows.
    split: (usize, usize),
    /// Blocks and heads of each group.
    groups: Vec<(usize, usize)>,
    has_qkv_bias: bool,
    three: bool,
    reconstruction: Reconstruction,
}

/// The network.
pub(in crate::networks) struct Dat(Trunk<DualBlock>);

/// How a block looks around.
enum Looks {
    /// Heads, windows and what is added to scores, of both halves of the channels.
    Windows(Vec<(Heads, Windows, Vec<f32>)>),
    /// A factor of each head's scores.
    Channels(Vec<f32>),
}

struct DualBlock {
    width: usize,
    norm1: LayerNorm,
    qkv: Linear,
    looks: Looks,
    beside: Depthwise,
    interaction: Interaction,
    projected: Linear,
    norm2: LayerNorm,
    wide: Linear,
    gate_norm: Norm,
    gate: Depthwise,
    narrow: Linear,
}

/// What each distance within a window adds to each head's scores: a small network of the distance.
fn distances(
    loader: &Loader,
    name: &str,
    (rows, columns): (usize, usize),
    width: usize,
    heads: usize,
) -> Result<Vec<f32>> {
    let numbers = |part: &str, shape: &[usize]| loader.numbers(&format!("{name}.{part}"), shape);
    let (first, first_bias) = (numbers("pos_proj.weight", &[width, 2])?, numbers("pos_proj.bias", &[width])?);
    let layer = |part: &str, outputs: usize| -> Result<_> {
        let norm = Norm::load(loader, &format!("{name}.{part}.0"), width)?;
        let weight = numbers(&format!("{part}.2.weight"), &[outputs, width])?;
        Ok((norm, weight, numbers(&format!("{part}.2.bias"), &[outputs])?))
    };
    let layers = [layer("pos1", width)?, layer("pos2", width)?, layer("pos3", heads)?];
    let mut table = vec![];
    for row in 0..2 * rows - 1 {
        for column in 0..2 * columns - 1 {
            let place = [row as f32 + 1.0 - rows as f32, column as f32 + 1.0 - columns as f32];
            let mut h: Vec<f32> = first
                .chunks_exact(2)
                .zip(&first_bias)
                .map(|(weight, bias)| weight[0] * place[0] + weight[1] * place[1] + bias)
                .collect();
            for (norm, weight, bias) in &layers {
                norm.apply(&mut h);
                let product = |weight: &[f32]| -> f32 {
                    weight.iter().zip(&h).map(|(weight, value)| weight * value.max(0.0)).sum()
                };
                h = weight
                    .chunks_exact(width)
                    .zip(bias)
                    .map(|(weight, bias)| product(weight) + bias)
                    .collect();
            }
            table.extend(h);
        }
    }
    Ok(of_distances(rows, columns, heads, |row, column, head| {
        table[(row * (2 * columns - 1) + column) * heads + head]
    }))
}

impl Looks {
    fn load(loader: &Loader, name: &str, config: &Config, place: &Place) -> Result<Self> {
        let Place { group, block, heads } = *place;
        let Config { width, split, .. } = *config;
        if block % 2 == 1 {
            return Ok(Self::Channels(loader.numbers(&format!("{name}.temperature"), &[heads, 1, 1])?));
        }
        let is_shifted = if group % 2 == 0 { block % 4 == 2 } else { block % 4 == 0 };
        let (half, of_half) = (width / 2, heads / 2);
        let halves = [split, (split.1, split.0)].into_iter().enumerate().map(|(index, (rows, columns))| {
            let heads = Heads { first: index * half, count: of_half, width: half / of_half };
            let windows = Windows {
                rows,
                columns,
                shift: is_shifted.then_some((rows / 2, columns / 2)),
                multiple: split.0.max(split.1),
            };
            let name = format!("{name}.attns.{index}.pos");
            // The network of distances is a sixteenth as wide as half of the channels.
            let bias = distances(loader, &name, (rows, columns), half / 4 / 4, of_half)?;
            Ok((heads, windows, bias))
        });
        Ok(Self::Windows(halves.collect::<Result<_>>()?))
    }
}

impl Block for DualBlock {
    fn forward(&self, x: &Activations, precision: Precision, device: &Device) -> Result<Activations> {
        let (batch, height, width, _) = x.dims4()?;
        let extent = Extent { batch, height, width };
        let qkv = self.qkv.forward(&self.norm1.forward(x, precision)?)?;
        let seen = self.seen(&qkv, extent, precision, device)?;
        drop(qkv);
        let x = self.projected.forward_with(&seen, &Epilogue::add(x))?;
        let wide = self.wide.forward(&self.norm2.forward(&x, precision)?)?;
        let wide = device.pointwise(&wide, Pointwise::Gelu)?;
        let dims = [batch, height, width, wide.channels() / 2];
        let gate = on_host(device, &[&wide], &dims, precision, |values| {
            let [wide] = &values[..] else { return vec![] };
            gated(wide, extent, &self.gate_norm, &self.gate)
        })?;
        drop(wide);
        self.narrow.forward_with(&gate, &Epilogue::add(&x))
    }
}

impl DualBlock {
    fn load(loader: &Loader, name: &str, config: &Config, place: &Place) -> Result<Self> {
        let Config { width, hidden, .. } = *config;
        let named = |part: &str| format!("{name}.{part}");
        let attention = named("attn");
        let qkv: fn(&Loader<'_>, &str, usize, usize) -> Result<Linear> =
            if config.has_qkv_bias { Linear::load } else { Linear::load_no_bias };
        let beside = Depthwise::load(loader, &format!("{attention}.dwconv.0"), width)?;
        Ok(Self {
            width,
            norm1: LayerNorm::load(loader, &named("norm1"), width)?,
            qkv: qkv(loader, &format!("{attention}.qkv"), width, 3 * width)?,
            looks: Looks::load(loader, &attention, config, place)?,
            beside: beside.normed(loader, &format!("{attention}.dwconv.1"))?,
            interaction: Interaction::load(loader, &attention, width)?,
            projected: Linear::load(loader, &format!("{attention}.proj"), width, width)?,
            norm2: LayerNorm::load(loader, &named("norm2"), width)?,
            wide: Linear::load(loader, &named("ffn.fc1"), width, hidden)?,
            gate_norm: Norm::load(loader, &named("ffn.sg.norm"), hidden / 2)?,
            gate: Depthwise::load(loader, &named("ffn.sg.conv"), hidden / 2)?,
            narrow: Linear::load(loader, &named("ffn.fc2"), hidden / 2, width)?,
        })
    }

    /// What attention and the convolution beside it see.
    fn seen(
        &self,
        qkv: &Activations,
        extent: Extent,
        precision: Precision,
        device: &Device,
    ) -> Result<Activations> {
        let channels = self.width;
        let dims = [extent.batch, extent.height, extent.width, channels];
        let beside = |qkv: &[f32]| {
            let mut made = self.beside.forward(qkv, extent, 3 * channels, 2 * channels);
            gelu_all(&mut made);
            made
        };
        match &self.looks {
            Looks::Channels(temperature) => on_host(device, &[qkv], &dims, precision, |values| {
                let [qkv] = &values[..] else { return vec![] };
                let seen = attention_of_channels(qkv, extent, channels, temperature);
                self.interaction.joined(beside(qkv), &seen, extent)
            }),
            Looks::Windows(halves) => {
                let halves = halves
                    .iter()
                    .map(|(heads, windows, bias)| attention_in_windows(device, qkv, *heads, *windows, bias));
                let halves = halves.collect::<Result<Vec<_>>>()?;
                let seen = match &halves[..] {
                    [one, other] => cat_channels(device, one, other)?,
                    _ => return Err(Error::Compute("dat: two halves of channels see windows".to_owned())),
                };
                drop(halves);
                on_host(device, &[&seen, qkv], &dims, precision, |mut values| {
                    let (Some(qkv), Some(seen)) = (values.pop(), values.pop()) else { return vec![] };
                    self.interaction.joined(seen, &beside(&qkv), extent)
                })
            }
        }
    }
}

/// Something that is computed on the host, of what is on the device, as `dims` in a precision.
fn on_host(
    device: &Device,
    from: &[&Activations],
    dims: &[usize],
    precision: Precision,
    work: impl FnOnce(Vec<Vec<f32>>) -> Vec<f32>,
) -> Result<Activations> {
    if !device.computes() {
        // What comes from there, what is made of it and beside it, all at once.
        let counts: usize = from.iter().map(|x| x.count()).sum();
        let _host = device.upload(&[], &[counts + 3 * dims.iter().product::<usize>()])?;
        return device.convert(&device.upload(&[], dims)?, precision);
    }
    let values = from.iter().map(|x| device.download(x)).collect::<Result<_>>()?;
    device.convert(&device.upload(&work(values), dims)?, precision)
}

impl UpscalerNetwork for Dat {
    const KIND: &'static str = "dat";

    type Config = Config;

    fn is_in(file: &Tensors, prefix: &str) -> bool {
        ["conv_first.weight", "before_RG.1.weight", "layers.0.blocks.0.attn.attns.0.rpe_biases"]
            .iter()
            .all(|name| file.shape(&format!("{prefix}{name}")).is_some())
    }

    fn config(file: &Tensors, prefix: &str) -> Result<Config> {
        let size = |name: &str, index: usize| dim(file, &format!("{prefix}{name}"), index);
        let has = |name: &str| file.shape(&format!("{prefix}{name}")).is_some();
        let wrong = |name: &str, why: &str| Error::model(file.path(), format!("tensor {prefix}{name} {why}"));
        let (width, inputs) = (size("conv_first.weight", 0)?, size("conv_first.weight", 1)?);
        // The last of all distances is the largest both ways.
        let of_distances = "layers.0.blocks.0.attn.attns.0.rpe_biases";
        let all = file.tensor(&format!("{prefix}{of_distances}"))?;
        let side =
            |value: Option<&f32>| value.map(|value| *value as usize + 1).filter(|side| *side <= MOST_WINDOW);
        let split = match all.values() {
            [.., row, column] => side(Some(row)).zip(side(Some(column))),
            _ => None,
        };
        let fits = |(rows, columns): &(usize, usize)| {
            rows * columns <= MOST_PIXELS
                && *all.dims() == [(2 * rows - 1) * (2 * columns - 1), 2]
                && rows.max(columns) % rows.min(columns) == 0
        };
        let split =
            split.filter(fits).ok_or_else(|| wrong(of_distances, "has the distances of no window"))?;
        let groups = count(file, |index| format!("{prefix}layers.{index}."));
        let of_group = |index: usize| {
            let blocks = count(file, |block| format!("{prefix}layers.{index}.blocks.{block}."));
            let temperature = format!("layers.{index}.blocks.1.attn.temperature");
            let of_half = format!("layers.{index}.blocks.0.attn.attns.0.pos.pos3.2.weight");
            let (name, heads) = if blocks >= 2 {
                let heads = size(&temperature, 0)?;
                (temperature, heads)
            } else {
                let heads = 2 * size(&of_half, 0)?;
                (of_half, heads)
            };
            let fits = heads >= 2 && heads % 2 == 0 && width % 2 == 0 && width.is_multiple_of(heads);
            if fits {
                Ok((blocks, heads))
            } else {
                Err(wrong(&name, &format!("has {heads} heads for {width} channels")))
            }
        };
        let groups = (0..groups).map(of_group).collect::<Result<_>>()?;
        let (reconstruction, outputs) = Reconstruction::detect(file, prefix, inputs)?;
        let fc1 = "layers.0.blocks.0.ffn.fc1.weight";
        let hidden = size(fc1, 0)?;
        if hidden % 2 != 0 || width < NARROWEST {
            return Err(wrong(fc1, &format!("is {hidden} wide for {width} channels, which is no DAT")));
        }
        Ok(Config {
            inputs,
            outputs,
            width,
            hidden,
            split,
            groups,
            has_qkv_bias: has("layers.0.blocks.0.attn.qkv.bias"),
            three: has("conv_after_body.0.weight"),
            reconstruction,
        })
    }

    fn facts(config: &Config) -> Facts {
        let Config { inputs, outputs, .. } = *config;
        Facts { scale: config.reconstruction.scale(), inputs, outputs, bringing: normal(1, 1, 1.0, inputs) }
    }

    fn load(loader: &Loader, prefix: &str, config: &Config) -> Result<Self> {
        let trunk = TrunkConfig {
            first: "conv_first",
            before: "before_RG.1",
            channels: config.inputs,
            width: config.width,
            groups: &config.groups,
            three: config.three,
            reconstruction: &config.reconstruction,
            outputs: config.outputs,
        };
        let trunk = Trunk::load(loader, prefix, &trunk, |group, place| {
            DualBlock::load(loader, &format!("{group}.blocks.{}", place.block), config, place)
        });
        Ok(Self(trunk?))
    }

    fn may_be_left(name: &str) -> bool {
        [".relative_position_index", ".rpe_biases", ".attn_mask_0", ".attn_mask_1", ".num_batches_tracked"]
            .iter()
            .any(|end| name.ends_with(end))
    }

    fn forward(&self, x: Activations, device: &Device, run: &Run) -> Result<Activations> {
        self.0.forward(&x, Self::KIND, device, run)
    }
}

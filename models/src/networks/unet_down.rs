//! The way down through a UNet, with its middle and its time embedding: what a ControlNet has a copy of.

use std::sync::Arc;

use super::unet_call::{AttentionPlace, Call, Context, TimeEmbedding};
use super::unet_config::{Block, UNetConfig};
use super::unet_layers::{Residual, Transformer};
use super::unet_sites::SitePart;
use crate::error::{Result, bail};
use crate::nn::{
    Activations, Conv2d, ConvConfig, Device, Epilogue, KeyValueTransform, Linear, Loader, Precision, Run,
    Wrap,
};

/// The layers. A copy shares their weights.
#[derive(Clone)]
pub(super) struct WayDown {
    pub(super) device: Device,
    pub(super) precision: Precision,
    /// After the first convolution.
    channels: usize,
    time: (Linear, Linear),
    conv_in: Conv2d,
    blocks: Vec<InputBlock>,
    middle: (Residual, Option<Transformer>, Residual),
}

#[derive(Clone)]
enum InputBlock {
    Residual(Box<Residual>, Option<Transformer>),
    Downsample(Conv2d),
}

impl WayDown {
    /// Reads the tensors under `prefix`; with it the channels of each skip, in the order in which they are stored.
    pub(super) fn load(loader: &Loader, prefix: &str, config: &UNetConfig) -> Result<(Self, Vec<usize>)> {
        let name = |part: &str| format!("{prefix}{part}");
        let UNetConfig { channels: first, time_width, .. } = *config;
        let mut channels = first;
        let mut skips = vec![first];
        let mut blocks = vec![];
        for (index, block) in config.input_blocks.iter().enumerate() {
            let part = name(&format!("input_blocks.{}", index + 1));
            blocks.push(match *block {
                Block::Residual { channels: out, depth, .. } => {
                    let residual = Residual::load(loader, &format!("{part}.0"), channels, out, time_width)?;
                    channels = out;
                    let transformer = transformer(loader, &format!("{part}.1"), config, out, depth)?;
                    InputBlock::Residual(Box::new(residual), transformer)
                }
                Block::Downsample => {
                    let config = ConvConfig { stride: 2, ..ConvConfig::same(channels, channels) };
                    InputBlock::Downsample(Conv2d::load(loader, &format!("{part}.0.op"), config)?)
                }
            });
            skips.push(channels);
        }
        let residual = |part: &str| Residual::load(loader, &name(part), channels, channels, time_width);
        let middle = (
            residual("middle_block.0")?,
            transformer(
                loader,
                &name("middle_block.1"),
                config,
                channels,
                config.middle_depth.unwrap_or_default(),
            )?,
            // Without a transformer the parts move up.
            residual(if config.middle_depth.is_some() { "middle_block.2" } else { "middle_block.1" })?,
        );
        let conv_in = ConvConfig::same(config.in_channels, first);
        let way = Self {
            time: (
                Linear::load_f32(loader, &name("time_embed.0"), first, time_width)?,
                Linear::load_f32(loader, &name("time_embed.2"), time_width, time_width)?,
            ),
            conv_in: Conv2d::load_f32(loader, &name("input_blocks.0.0"), conv_in)?,
            blocks,
            middle,
            channels: first,
            precision: loader.precision(),
            device: loader.device().clone(),
        };
        Ok((way, skips))
    }

    pub(super) fn set_wrap(&mut self, wrap: Wrap) {
        self.conv_in.set_wrap(wrap);
        for block in &mut self.blocks {
            match block {
                InputBlock::Residual(residual, _) => residual.set_wrap(wrap),
                InputBlock::Downsample(conv) => conv.set_wrap(wrap),
            }
        }
        self.middle.0.set_wrap(wrap);
        self.middle.2.set_wrap(wrap);
    }

    /// Blocks after the first convolution.
    pub(super) fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// `x (batch, height, width, in_channels)` f32 after the first convolution, with `added` of that size, in f32.
    pub(super) fn first(&self, x: &Activations, added: Option<&Activations>) -> Result<Activations> {
        let epilogue = Epilogue { residual: added, ..Epilogue::default() };
        self.device.convert(&self.conv_in.forward_with(x, &epilogue)?, self.precision)
    }

    /// `h (batch, height, width, channels)` after a block.
    pub(super) fn block(&self, index: usize, h: &Activations, call: &mut Call) -> Result<Activations> {
        call.place = AttentionPlace { part: SitePart::Input, index: index + 1, layer: 0 };
        match self.blocks.get(index) {
            Some(InputBlock::Residual(residual, transformer)) => {
                transformed(transformer.as_ref(), residual.forward(h, call)?, call)
            }
            Some(InputBlock::Downsample(conv)) => conv.forward(h),
            None => bail!("unet: no input block {}", index + 1),
        }
    }

    /// `h (batch, height, width, channels)` after the middle.
    pub(super) fn middle(&self, h: &Activations, call: &mut Call) -> Result<Activations> {
        call.place = AttentionPlace { part: SitePart::Middle, index: 0, layer: 0 };
        let (first, transformer, last) = &self.middle;
        let h = transformed(transformer.as_ref(), first.forward(h, call)?, call)?;
        last.forward(&h, call)
    }

    /// In the order in which they are run.
    pub(super) fn residual_blocks(&self) -> impl Iterator<Item = &Residual> {
        let blocks = self.blocks.iter().filter_map(|block| match block {
            InputBlock::Residual(residual, _) => Some(&**residual),
            InputBlock::Downsample(_) => None,
        });
        blocks.chain([&self.middle.0, &self.middle.2])
    }

    /// In the order in which they are run.
    pub(super) fn transformers(&self) -> impl Iterator<Item = &Transformer> {
        let blocks = self.blocks.iter().filter_map(|block| match block {
            InputBlock::Residual(_, transformer) => transformer.as_ref(),
            InputBlock::Downsample(_) => None,
        });
        blocks.chain(&self.middle.1)
    }

    /// Timesteps, fractional ones too, as each of `blocks` takes them: sinusoids (cosines first), two layers, and the block's own.
    /// In f32 throughout. Many cost little more than one, whose work is to read the weights; each is the same alone.
    pub(super) fn times<'a>(
        &self,
        timesteps: &[f32],
        blocks: impl Iterator<Item = &'a Residual> + Send,
    ) -> Result<Vec<TimeEmbedding>> {
        let half = self.channels / 2;
        let angle = |timestep: f32, i: usize| {
            let frequency = (-(10000f64.ln()) * i as f64 / half as f64).exp() as f32;
            f64::from(timestep * frequency)
        };
        let values: Vec<f32> = timesteps
            .iter()
            .flat_map(|t| {
                let cosines = (0..half).map(|i| angle(*t, i).cos() as f32);
                cosines.chain((0..half).map(|i| angle(*t, i).sin() as f32))
            })
            .collect();
        self.device.run(|| self.embedded(&values, timesteps.len(), blocks))
    }

    /// Sinusoids `(count, channels)` as each of `blocks` takes them.
    fn embedded<'a>(
        &self,
        values: &[f32],
        count: usize,
        blocks: impl Iterator<Item = &'a Residual>,
    ) -> Result<Vec<TimeEmbedding>> {
        let device = &self.device;
        let x = device.upload(values, &[count, values.len() / count.max(1)])?;
        let x = self.time.1.forward(&device.silu(&self.time.0.forward(&x)?)?)?;
        // Every residual block begins with this activation: done once.
        let x = device.silu(&x)?;
        let mut times: Vec<_> = (0..count).map(|_| TimeEmbedding(vec![])).collect();
        for block in blocks {
            let all = block.time.forward(&x)?;
            for (index, time) in times.iter_mut().enumerate() {
                time.0.push(device.part(&all, index, 1)?);
            }
        }
        Ok(times)
    }
}

/// A transformer of `depth` blocks, if that is any.
pub(super) fn transformer(
    loader: &Loader,
    name: &str,
    config: &UNetConfig,
    channels: usize,
    depth: usize,
) -> Result<Option<Transformer>> {
    let of = (config.context_width, config.heads);
    (depth > 0).then(|| Transformer::load(loader, name, channels, depth, of)).transpose()
}

/// `h (batch, height, width, channels)` after a transformer, if there is one.
pub(super) fn transformed(
    transformer: Option<&Transformer>,
    h: Activations,
    call: &mut Call,
) -> Result<Activations> {
    transformer
        .map_or(Ok(None), |transformer| transformer.forward(&h, call).map(Some))
        .map(|new| new.unwrap_or(h))
}

/// Keys and values that transformers in a row make of conditioning `(batch, tokens, context width)`, changed by `transforms` on the
/// way. `run` may end it between blocks.
pub(super) fn context_of<'a>(
    (device, precision): (&Device, Precision),
    transformers: impl Iterator<Item = &'a Transformer>,
    context: &Activations,
    transforms: &[Arc<dyn KeyValueTransform>],
    run: &Run,
) -> Result<Context> {
    let context = device.convert(context, precision)?;
    let blocks = transformers.flat_map(|transformer| &transformer.blocks);
    let keys = blocks.enumerate().map(|(index, block)| {
        run.enter(device, format_args!("unet.context.{index}"))?;
        block.attention_2.keys(device, &context, transforms)
    });
    Ok(Context { keys: keys.collect::<Result<_>>()?, tokens: None, own: vec![] })
}

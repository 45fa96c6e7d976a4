//! The denoising UNet with cross-attention (Rombach et al. 2022), in the LDM key layout.

use candle_core::{D, Device, Result, Tensor, bail};

use super::{MOST_IN_A_ROW, count, dim};
use crate::files::{Loader, SafeTensors};
use crate::nn::{
    Conv2d, ConvConfig, GroupNorm, LayerNorm, Linear, add_per_channel, attention, geglu, resize_nearest,
    silu, to_channels_first, to_channels_last,
};

/// One step of the path down or up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Block {
    /// A residual block to `channels`, then a transformer of `depth` blocks (0: none), then, on the way up, an
    /// enlargement.
    Residual {
        /// Output channels.
        channels: usize,
        /// Transformer blocks.
        depth: usize,
        /// Whether the size doubles at the end.
        upsample: bool,
    },
    /// Half the size.
    Downsample,
}

/// What can be told from the tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UNetConfig {
    /// Latent channels in.
    pub in_channels: usize,
    /// Latent channels out.
    pub out_channels: usize,
    /// Channels after the first convolution.
    pub channels: usize,
    /// Width of the time embedding.
    pub time_width: usize,
    /// Width of a conditioning token; 0 if no block attends to one.
    pub context_width: usize,
    /// The way down, after the first convolution.
    pub input_blocks: Vec<Block>,
    /// Transformer blocks in the middle; `None` if it has no transformer.
    pub middle_depth: Option<usize>,
    /// The way up.
    pub output_blocks: Vec<Block>,
    /// Attention heads of every transformer.
    pub heads: usize,
}

impl UNetConfig {
    /// Heads of SD 1.x, whatever the width.
    const HEADS: usize = 8;

    /// Stable Diffusion 1.5.
    pub fn sd15() -> Self {
        let residual = |channels, depth| Block::Residual { channels, depth, upsample: false };
        let mut input_blocks = vec![];
        let mut output_blocks = vec![];
        for (level, (channels, depth)) in [(320, 1), (640, 1), (1280, 1), (1280, 0)].into_iter().enumerate() {
            if level > 0 {
                input_blocks.push(Block::Downsample);
            }
            input_blocks.extend([residual(channels, depth), residual(channels, depth)]);
            let up = Block::Residual { channels, depth, upsample: level > 0 };
            output_blocks.splice(0..0, [residual(channels, depth), residual(channels, depth), up]);
        }
        Self {
            in_channels: 4,
            out_channels: 4,
            channels: 320,
            time_width: 1280,
            context_width: 768,
            input_blocks,
            middle_depth: Some(1),
            output_blocks,
            heads: Self::HEADS,
        }
    }

    /// Channels of every level, more than once where blocks share them.
    pub fn widths(&self) -> Vec<usize> {
        let blocks = self.input_blocks.iter().chain(&self.output_blocks).filter_map(|block| match block {
            Block::Residual { channels, .. } => Some(*channels),
            Block::Downsample => None,
        });
        std::iter::once(self.channels).chain(blocks).collect()
    }

    /// Reads it from the tensors under `prefix`.
    pub fn detect(file: &SafeTensors, prefix: &str) -> crate::Result<Self> {
        let name = |part: &str| format!("{prefix}{part}");
        let has = |part: &str| file.shape(&name(part)).is_some();
        let depth = |part: &str| count(file, |i| name(&format!("{part}.transformer_blocks.{i}.")));
        let residual = |part: &str, upsample: bool| -> crate::Result<Block> {
            let channels = dim(file, &name(&format!("{part}.0.in_layers.2.weight")), 0)?;
            Ok(Block::Residual { channels, depth: depth(&format!("{part}.1")), upsample })
        };
        let mut input_blocks = vec![];
        let blocks = |way: &str, from: usize| {
            let parts = (from..MOST_IN_A_ROW).map(move |index| format!("{way}.{index}"));
            parts.take_while(|part| file.has_under(&name(&format!("{part}.")))).collect::<Vec<_>>()
        };
        for part in blocks("input_blocks", 1) {
            let downsample = file.has_under(&name(&format!("{part}.0.op.")));
            input_blocks.push(if downsample { Block::Downsample } else { residual(&part, false)? });
        }
        let mut output_blocks = vec![];
        for part in blocks("output_blocks", 0) {
            let upsample = has(&format!("{part}.1.conv.weight")) || has(&format!("{part}.2.conv.weight"));
            output_blocks.push(residual(&part, upsample)?);
        }
        let keys = file.names().find(|name| {
            name.starts_with(prefix) && name.ends_with("transformer_blocks.0.attn2.to_k.weight")
        });
        let middle = depth("middle_block.1");
        Ok(Self {
            in_channels: dim(file, &name("input_blocks.0.0.weight"), 1)?,
            out_channels: dim(file, &name("out.2.weight"), 0)?,
            channels: dim(file, &name("input_blocks.0.0.weight"), 0)?,
            time_width: dim(file, &name("time_embed.0.weight"), 0)?,
            context_width: keys.map_or(Ok(0), |keys| dim(file, keys, 1))?,
            input_blocks,
            middle_depth: (middle > 0).then_some(middle),
            output_blocks,
            heads: Self::HEADS,
        })
    }
}

/// The network.
pub struct UNet {
    config: UNetConfig,
    time_1: Linear,
    time_2: Linear,
    conv_in: Conv2d,
    input_blocks: Vec<InputBlock>,
    middle: (Residual, Option<Transformer>, Residual),
    output_blocks: Vec<OutputBlock>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

enum InputBlock {
    Residual(Box<Residual>, Option<Transformer>),
    Downsample(Conv2d),
}

struct OutputBlock {
    residual: Residual,
    transformer: Option<Transformer>,
    upsample: Option<Conv2d>,
}

impl UNet {
    /// Reads the tensors under `prefix`.
    pub fn load(loader: &Loader, prefix: &str, config: UNetConfig) -> crate::Result<Self> {
        let name = |part: &str| format!("{prefix}{part}");
        let UNetConfig { channels: first, time_width, .. } = config;
        let transformer = |part: &str, channels: usize, depth: usize| {
            (depth > 0).then(|| Transformer::load(loader, &name(part), channels, depth, &config)).transpose()
        };
        let mut channels = first;
        let mut skips = vec![first];
        let mut input_blocks = vec![];
        for (index, block) in config.input_blocks.iter().enumerate() {
            let part = format!("input_blocks.{}", index + 1);
            input_blocks.push(match *block {
                Block::Residual { channels: out, depth, .. } => {
                    let residual =
                        Residual::load(loader, &name(&format!("{part}.0")), channels, out, time_width)?;
                    channels = out;
                    InputBlock::Residual(Box::new(residual), transformer(&format!("{part}.1"), out, depth)?)
                }
                Block::Downsample => {
                    let config = ConvConfig { stride: 2, ..ConvConfig::same(channels, channels) };
                    InputBlock::Downsample(Conv2d::load(loader, &name(&format!("{part}.0.op")), config)?)
                }
            });
            skips.push(channels);
        }
        let residual = |part: &str, inputs, out| Residual::load(loader, &name(part), inputs, out, time_width);
        let middle = (
            residual("middle_block.0", channels, channels)?,
            config.middle_depth.map_or(Ok(None), |depth| transformer("middle_block.1", channels, depth))?,
            // Without a transformer the parts move up.
            residual(
                if config.middle_depth.is_some() { "middle_block.2" } else { "middle_block.1" },
                channels,
                channels,
            )?,
        );
        let mut output_blocks = vec![];
        for (index, block) in config.output_blocks.iter().enumerate() {
            let part = format!("output_blocks.{index}");
            let (Block::Residual { channels: out, depth, upsample }, Some(skip)) = (block, skips.pop())
            else {
                return Err(loader.refusal("the UNet's way up does not mirror its way down"));
            };
            let residual = residual(&format!("{part}.0"), channels + skip, *out)?;
            channels = *out;
            let transformer = transformer(&format!("{part}.1"), channels, *depth)?;
            let conv = if transformer.is_some() { 2 } else { 1 };
            let upsample = upsample
                .then(|| {
                    let config = ConvConfig { upsample: 2, ..ConvConfig::same(channels, channels) };
                    Conv2d::load(loader, &name(&format!("{part}.{conv}.conv")), config)
                })
                .transpose()?;
            output_blocks.push(OutputBlock { residual, transformer, upsample });
        }
        if !skips.is_empty() {
            return Err(loader.refusal("the UNet's way up does not mirror its way down"));
        }
        Ok(Self {
            time_1: Linear::load(loader, &name("time_embed.0"), first, time_width)?,
            time_2: Linear::load(loader, &name("time_embed.2"), time_width, time_width)?,
            conv_in: Conv2d::load(
                loader,
                &name("input_blocks.0.0"),
                ConvConfig::same(config.in_channels, first),
            )?,
            input_blocks,
            middle,
            output_blocks,
            norm_out: GroupNorm::load(loader, &name("out.0"), channels, Residual::EPSILON)?,
            conv_out: Conv2d::load(loader, &name("out.2"), ConvConfig::same(channels, config.out_channels))?,
            config,
        })
    }

    /// What this network is.
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// Bytes of its weights.
    pub fn bytes(&self) -> usize {
        let transformer = |t: &Option<Transformer>| t.as_ref().map_or(0, Transformer::bytes);
        let input = self.input_blocks.iter().map(|block| match block {
            InputBlock::Residual(residual, t) => residual.bytes() + transformer(t),
            InputBlock::Downsample(conv) => conv.bytes(),
        });
        let output = self.output_blocks.iter().map(|block| {
            let upsample = block.upsample.as_ref().map_or(0, Conv2d::bytes);
            block.residual.bytes() + transformer(&block.transformer) + upsample
        });
        let middle = self.middle.0.bytes() + transformer(&self.middle.1) + self.middle.2.bytes();
        let ends = self.time_1.bytes() + self.time_2.bytes() + self.conv_in.bytes() + self.conv_out.bytes();
        input.sum::<usize>() + output.sum::<usize>() + middle + ends + self.norm_out.bytes()
    }

    /// Bytes that activations take in a call with `samples` latents of this size: the skip connections, which
    /// live throughout, and the largest block, a transformer's feed-forward (eight times the channels, halved
    /// again) or a residual block fed with a skip (about six times the channels).
    pub fn activation_bytes(&self, height: usize, width: usize, samples: usize) -> u64 {
        let (mut height, mut width, mut channels) = (height, width, self.config.channels);
        let mut skips = channels * height * width;
        let mut largest = 0;
        for block in &self.config.input_blocks {
            match block {
                Block::Residual { channels: out, depth, .. } => {
                    channels = *out;
                    largest = largest.max(channels * height * width * if *depth > 0 { 16 } else { 8 });
                }
                Block::Downsample => (height, width) = (height.div_ceil(2), width.div_ceil(2)),
            }
            skips += channels * height * width;
        }
        ((skips + largest) * samples * size_of::<f32>()) as u64
    }

    /// Predicts from noisy latents `x (batch, in_channels, height, width)`, one timestep per sample (fractional
    /// ones are fine) and conditioning `(batch, tokens, context_width)` → `(batch, out_channels, height, width)`.
    ///
    /// Any height and width will do. `residuals`, as a ControlNet makes them, are `(batch, channels, height,
    /// width)`: one per skip connection in the order of the way down, then one for the middle; another number or
    /// shape is an error.
    pub fn forward(
        &self,
        x: &Tensor,
        timesteps: &[f32],
        context: &Tensor,
        residuals: Option<&[Tensor]>,
    ) -> Result<Tensor> {
        let batch = x.dim(0)?;
        if timesteps.len() != batch || context.dim(0)? != batch {
            bail!(
                "unet: {} timesteps and conditioning {:?} for latents {:?}",
                timesteps.len(),
                context.shape(),
                x.shape()
            );
        }
        let time = self.time_embedding(timesteps)?;
        let mut h = self.conv_in.forward(&to_channels_last(x)?)?;
        let mut skips = vec![h.clone()];
        for block in &self.input_blocks {
            h = match block {
                InputBlock::Residual(residual, transformer) => {
                    transform(transformer.as_ref(), residual.forward(&h, &time)?, context)?
                }
                InputBlock::Downsample(conv) => conv.forward(&h)?,
            };
            skips.push(h.clone());
        }
        h = self.middle.0.forward(&h, &time)?;
        h = transform(self.middle.1.as_ref(), h, context)?;
        h = self.middle.2.forward(&h, &time)?;
        if let Some(residuals) = residuals {
            h = add_residuals(residuals, &mut skips, h)?;
        }
        for block in &self.output_blocks {
            let Some(skip) = skips.pop() else { bail!("unet: more blocks up than down") };
            // An odd size rounds up when halved, and comes back one too large.
            let (_, rows, columns, _) = skip.dims4()?;
            let input = Tensor::cat(&[&resize_nearest(&h, rows, columns)?, &skip], 3)?;
            drop((h, skip));
            h = block.residual.forward(&input, &time)?;
            drop(input);
            h = transform(block.transformer.as_ref(), h, context)?;
            if let Some(conv) = &block.upsample {
                h = conv.forward(&h)?;
            }
        }
        to_channels_first(&self.conv_out.forward(&self.norm_out.forward_silu(&h)?)?)
    }

    /// Sinusoids of the timesteps (cosines first), then two layers. In f32 throughout.
    fn time_embedding(&self, timesteps: &[f32]) -> Result<Tensor> {
        let half = self.config.channels / 2;
        let mut values = Vec::with_capacity(timesteps.len() * half * 2);
        for t in timesteps {
            let angle = |i: usize| {
                let frequency = (-(10000f64.ln()) * i as f64 / half as f64).exp() as f32;
                f64::from(t * frequency)
            };
            values.extend((0..half).map(|i| angle(i).cos() as f32));
            values.extend((0..half).map(|i| angle(i).sin() as f32));
        }
        let x = Tensor::from_vec(values, (timesteps.len(), half * 2), &Device::Cpu)?;
        let x = self.time_2.forward(&silu(&self.time_1.forward(&x)?)?)?;
        // Every residual block begins with this activation: done once.
        silu(&x)
    }
}

fn transform(transformer: Option<&Transformer>, h: Tensor, context: &Tensor) -> Result<Tensor> {
    match transformer {
        Some(transformer) => transformer.forward(&h, context),
        None => Ok(h),
    }
}

/// Adds a ControlNet's residuals to the skip connections and the middle.
fn add_residuals(residuals: &[Tensor], skips: &mut [Tensor], middle: Tensor) -> Result<Tensor> {
    let Some((last, rest)) = residuals.split_last() else {
        return Ok(middle);
    };
    if rest.len() != skips.len() {
        bail!("unet: {} residuals were given, {} are needed", residuals.len(), skips.len() + 1);
    }
    let add = |to: &Tensor, residual: &Tensor, index: usize| -> Result<Tensor> {
        let (batch, height, width, channels) = to.dims4()?;
        if residual.dims() != [batch, channels, height, width] {
            let wanted = [batch, channels, height, width];
            bail!("unet: residual {index} is {:?}, {wanted:?} is needed", residual.dims());
        }
        to + to_channels_last(residual)?
    };
    for (index, (skip, residual)) in skips.iter_mut().zip(rest).enumerate() {
        *skip = add(skip, residual, index)?;
    }
    add(&middle, last, rest.len())
}

/// Two convolutions with the time embedding between them, and a way around.
struct Residual {
    norm_1: GroupNorm,
    conv_1: Conv2d,
    time: Linear,
    norm_2: GroupNorm,
    conv_2: Conv2d,
    skip: Option<Linear>,
}

impl Residual {
    const EPSILON: f32 = 1e-5;

    fn load(loader: &Loader, name: &str, inputs: usize, outputs: usize, time: usize) -> crate::Result<Self> {
        let part = |part: &str| format!("{name}.{part}");
        Ok(Self {
            norm_1: GroupNorm::load(loader, &part("in_layers.0"), inputs, Self::EPSILON)?,
            conv_1: Conv2d::load(loader, &part("in_layers.2"), ConvConfig::same(inputs, outputs))?,
            time: Linear::load(loader, &part("emb_layers.1"), time, outputs)?,
            norm_2: GroupNorm::load(loader, &part("out_layers.0"), outputs, Self::EPSILON)?,
            conv_2: Conv2d::load(loader, &part("out_layers.3"), ConvConfig::same(outputs, outputs))?,
            skip: (inputs != outputs)
                .then(|| Linear::load(loader, &part("skip_connection"), inputs, outputs))
                .transpose()?,
        })
    }

    fn bytes(&self) -> usize {
        let skip = self.skip.as_ref().map_or(0, Linear::bytes);
        let norms = self.norm_1.bytes() + self.norm_2.bytes();
        self.conv_1.bytes() + self.conv_2.bytes() + self.time.bytes() + norms + skip
    }

    /// `x (batch, height, width, inputs)`, `time (batch, time width)` already activated.
    fn forward(&self, x: &Tensor, time: &Tensor) -> Result<Tensor> {
        let h = self.conv_1.forward(&self.norm_1.forward_silu(x)?)?;
        let h = add_per_channel(&h, &self.time.forward(time)?)?;
        let h = self.conv_2.forward(&self.norm_2.forward_silu(&h)?)?;
        match &self.skip {
            Some(skip) => h + skip.forward(x)?,
            None => h + x,
        }
    }
}

/// Transformer blocks over pixels, with a way around.
struct Transformer {
    norm: GroupNorm,
    proj_in: Linear,
    blocks: Vec<TransformerBlock>,
    proj_out: Linear,
}

impl Transformer {
    const EPSILON: f32 = 1e-6;

    fn load(
        loader: &Loader,
        name: &str,
        channels: usize,
        depth: usize,
        config: &UNetConfig,
    ) -> crate::Result<Self> {
        let blocks = (0..depth).map(|index| {
            TransformerBlock::load(loader, &format!("{name}.transformer_blocks.{index}"), channels, config)
        });
        Ok(Self {
            norm: GroupNorm::load(loader, &format!("{name}.norm"), channels, Self::EPSILON)?,
            proj_in: Linear::load(loader, &format!("{name}.proj_in"), channels, channels)?,
            blocks: blocks.collect::<crate::Result<_>>()?,
            proj_out: Linear::load(loader, &format!("{name}.proj_out"), channels, channels)?,
        })
    }

    fn bytes(&self) -> usize {
        let blocks: usize = self.blocks.iter().map(TransformerBlock::bytes).sum();
        self.norm.bytes() + self.proj_in.bytes() + self.proj_out.bytes() + blocks
    }

    /// `x (batch, height, width, channels)`, `context (batch, tokens, context width)`.
    fn forward(&self, x: &Tensor, context: &Tensor) -> Result<Tensor> {
        let (batch, height, width, channels) = x.dims4()?;
        let h = self.proj_in.forward(&self.norm.forward(x)?)?;
        let mut h = h.reshape((batch, height * width, channels))?;
        for block in &self.blocks {
            h = block.forward(&h, context)?;
        }
        self.proj_out.forward(&h)?.reshape((batch, height, width, channels))? + x
    }
}

/// Self-attention, cross-attention, feed-forward.
struct TransformerBlock {
    norm_1: LayerNorm,
    attention_1: Attention,
    norm_2: LayerNorm,
    attention_2: Attention,
    norm_3: LayerNorm,
    feed_in: Linear,
    feed_out: Linear,
}

impl TransformerBlock {
    fn load(loader: &Loader, name: &str, channels: usize, config: &UNetConfig) -> crate::Result<Self> {
        let part = |part: &str| format!("{name}.{part}");
        let heads = config.heads;
        let inner = channels * 4;
        Ok(Self {
            norm_1: LayerNorm::load(loader, &part("norm1"), channels)?,
            attention_1: Attention::load(loader, &part("attn1"), channels, channels, heads)?,
            norm_2: LayerNorm::load(loader, &part("norm2"), channels)?,
            attention_2: Attention::load(loader, &part("attn2"), channels, config.context_width, heads)?,
            norm_3: LayerNorm::load(loader, &part("norm3"), channels)?,
            feed_in: Linear::load(loader, &part("ff.net.0.proj"), channels, inner * 2)?,
            feed_out: Linear::load(loader, &part("ff.net.2"), inner, channels)?,
        })
    }

    fn bytes(&self) -> usize {
        let norms = self.norm_1.bytes() + self.norm_2.bytes() + self.norm_3.bytes();
        let attention = self.attention_1.bytes() + self.attention_2.bytes();
        norms + attention + self.feed_in.bytes() + self.feed_out.bytes()
    }

    fn forward(&self, x: &Tensor, context: &Tensor) -> Result<Tensor> {
        let h = self.norm_1.forward(x)?;
        let x = (self.attention_1.forward(&h, &h)? + x)?;
        let x = (self.attention_2.forward(&self.norm_2.forward(&x)?, context)? + x)?;
        let h = geglu(&self.feed_in.forward(&self.norm_3.forward(&x)?)?)?;
        self.feed_out.forward(&h)? + x
    }
}

struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    heads: usize,
}

impl Attention {
    fn load(
        loader: &Loader,
        name: &str,
        channels: usize,
        context: usize,
        heads: usize,
    ) -> crate::Result<Self> {
        let part = |part: &str| format!("{name}.{part}");
        Ok(Self {
            query: Linear::load_no_bias(loader, &part("to_q"), channels, channels)?,
            key: Linear::load_no_bias(loader, &part("to_k"), context, channels)?,
            value: Linear::load_no_bias(loader, &part("to_v"), context, channels)?,
            out: Linear::load(loader, &part("to_out.0"), channels, channels)?,
            heads,
        })
    }

    fn bytes(&self) -> usize {
        self.query.bytes() + self.key.bytes() + self.value.bytes() + self.out.bytes()
    }

    fn forward(&self, x: &Tensor, context: &Tensor) -> Result<Tensor> {
        let (q, k, v) = (self.query.forward(x)?, self.key.forward(context)?, self.value.forward(context)?);
        if q.dim(D::Minus1)? % self.heads != 0 {
            bail!("unet: {} channels do not divide into {} heads", q.dim(D::Minus1)?, self.heads);
        }
        self.out.forward(&attention(&q, &k, &v, self.heads, false)?)
    }
}

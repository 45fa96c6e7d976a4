//! The denoising UNet with cross-attention (Rombach et al. 2022), in the LDM key layout.

use candle_core::{Result, Tensor, bail};

use super::{MOST_IN_A_ROW, count, dim};
use crate::files::{Loader, SafeTensors};
use crate::nn::{
    Activations, Conv2d, ConvConfig, Ends, GatedLinear, GroupNorm, Keys, LayerNorm, Linear, Precision,
    attention, attention_of_each, silu,
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
    precision: Precision,
}

/// One timestep as every residual block takes it, for any number of calls.
pub struct TimeEmbedding(Vec<Activations>);

/// Conditioning as every cross-attention takes it, for any number of calls.
pub struct Context(Vec<Keys>);

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
            time_1: Linear::load_f32(loader, &name("time_embed.0"), first, time_width)?,
            time_2: Linear::load_f32(loader, &name("time_embed.2"), time_width, time_width)?,
            conv_in: Conv2d::load_f32(
                loader,
                &name("input_blocks.0.0"),
                ConvConfig::same(config.in_channels, first),
            )?,
            input_blocks,
            middle,
            output_blocks,
            norm_out: GroupNorm::load(loader, &name("out.0"), channels, Residual::EPSILON)?,
            conv_out: Conv2d::load(loader, &name("out.2"), ConvConfig::same(channels, config.out_channels))?,
            precision: loader.precision(),
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
        ((skips + largest) * samples * self.precision.size()) as u64
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
        let times = self.time_embeddings(timesteps)?;
        let context = self.context(context)?;
        self.denoise(x, &times.iter().collect::<Vec<_>>(), &[&context], residuals)
    }

    /// The same with what does not change from call to call made before: one `times` per sample, and `contexts` whose
    /// batches make up that of `x` one after the other.
    pub fn denoise(
        &self,
        x: &Tensor,
        times: &[&TimeEmbedding],
        contexts: &[&Context],
        residuals: Option<&[Tensor]>,
    ) -> Result<Tensor> {
        if times.len() != x.dim(0)? {
            bail!("unet: {} timesteps for latents {:?}", times.len(), x.shape());
        }
        let mut call = Call { times, contexts, residual_block: 0, cross_attention: 0 };
        let mut h = self.conv_in.forward(&Activations::from_channels_first(x)?)?.to(self.precision);
        let mut skips = vec![h.clone()];
        for block in &self.input_blocks {
            h = match block {
                InputBlock::Residual(residual, transformer) => {
                    transform(transformer.as_ref(), residual.forward(&h, &mut call)?, &mut call)?
                }
                InputBlock::Downsample(conv) => conv.forward(&h)?,
            };
            skips.push(h.clone());
        }
        h = self.middle.0.forward(&h, &mut call)?;
        h = transform(self.middle.1.as_ref(), h, &mut call)?;
        h = self.middle.2.forward(&h, &mut call)?;
        if let Some(residuals) = residuals {
            h = add_residuals(residuals, &mut skips, h)?;
        }
        for block in &self.output_blocks {
            let Some(skip) = skips.pop() else { bail!("unet: more blocks up than down") };
            // An odd size rounds up when halved, and comes back one too large.
            let (_, rows, columns, _) = skip.dims4()?;
            let input = h.resized_nearest(rows, columns)?.cat_channels(&skip)?;
            drop((h, skip));
            h = block.residual.forward(&input, &mut call)?;
            drop(input);
            h = transform(block.transformer.as_ref(), h, &mut call)?;
            if let Some(conv) = &block.upsample {
                h = conv.forward(&h)?;
            }
        }
        let ends = Ends { widen: true, ..Ends::default() };
        self.conv_out.forward_normed(&self.norm_out, &h, &ends)?.to_channels_first()
    }

    /// Keys and values of conditioning `(batch, tokens, context_width)`.
    pub fn context(&self, context: &Tensor) -> Result<Context> {
        let context = Activations::from_tensor(context)?.to(self.precision);
        let blocks = self.transformers().flat_map(|transformer| &transformer.blocks);
        blocks.map(|block| block.attention_2.keys(&context)).collect::<Result<_>>().map(Context)
    }

    /// Timesteps, fractional ones too: sinusoids (cosines first), two layers, and each residual block's own. In f32
    /// throughout. Many cost little more than one, whose work is to read the weights; each is the same alone.
    pub fn time_embeddings(&self, timesteps: &[f32]) -> Result<Vec<TimeEmbedding>> {
        let half = self.config.channels / 2;
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
        let x = Activations::from_f32(&values, [timesteps.len(), half * 2])?;
        let x = self.time_2.forward(&silu(&self.time_1.forward(&x)?)?)?;
        // Every residual block begins with this activation: done once.
        let x = silu(&x)?;
        let mut times: Vec<_> = timesteps.iter().map(|_| TimeEmbedding(vec![])).collect();
        for block in self.residual_blocks() {
            for (time, row) in times.iter_mut().zip(block.time.forward(&x)?.split_rows()?) {
                time.0.push(row);
            }
        }
        Ok(times)
    }

    /// In the order in which they are run.
    fn residual_blocks(&self) -> impl Iterator<Item = &Residual> {
        let input = self.input_blocks.iter().filter_map(|block| match block {
            InputBlock::Residual(residual, _) => Some(&**residual),
            InputBlock::Downsample(_) => None,
        });
        let output = self.output_blocks.iter().map(|block| &block.residual);
        input.chain([&self.middle.0, &self.middle.2]).chain(output)
    }

    /// In the order in which they are run.
    fn transformers(&self) -> impl Iterator<Item = &Transformer> {
        let input = self.input_blocks.iter().filter_map(|block| match block {
            InputBlock::Residual(_, transformer) => transformer.as_ref(),
            InputBlock::Downsample(_) => None,
        });
        input.chain(&self.middle.1).chain(self.output_blocks.iter().filter_map(|b| b.transformer.as_ref()))
    }
}

/// What a call's blocks take, each its own, in the order in which they are run.
struct Call<'a> {
    times: &'a [&'a TimeEmbedding],
    contexts: &'a [&'a Context],
    /// Residual blocks run so far.
    residual_block: usize,
    /// Cross-attentions run so far.
    cross_attention: usize,
}

impl Call<'_> {
    /// The next residual block's `(batch, channels)`.
    fn time(&mut self) -> Result<Activations> {
        let of_each =
            self.times.iter().filter_map(|time| time.0.get(self.residual_block)).collect::<Vec<_>>();
        self.residual_block += 1;
        Activations::stack(&of_each)
    }

    /// The next cross-attention's keys.
    fn keys(&mut self) -> Vec<&Keys> {
        let index = self.cross_attention;
        self.cross_attention += 1;
        self.contexts.iter().filter_map(|context| context.0.get(index)).collect()
    }
}

fn transform(transformer: Option<&Transformer>, h: Activations, call: &mut Call) -> Result<Activations> {
    match transformer {
        Some(transformer) => transformer.forward(&h, call),
        None => Ok(h),
    }
}

/// Adds a ControlNet's residuals to the skip connections and the middle.
fn add_residuals(
    residuals: &[Tensor],
    skips: &mut [Activations],
    middle: Activations,
) -> Result<Activations> {
    let Some((last, rest)) = residuals.split_last() else {
        return Ok(middle);
    };
    if rest.len() != skips.len() {
        bail!("unet: {} residuals were given, {} are needed", residuals.len(), skips.len() + 1);
    }
    let add = |to: &Activations, residual: &Tensor, index: usize| -> Result<Activations> {
        let (batch, height, width, channels) = to.dims4()?;
        if residual.dims() != [batch, channels, height, width] {
            let wanted = [batch, channels, height, width];
            bail!("unet: residual {index} is {:?}, {wanted:?} is needed", residual.dims());
        }
        to.add(&Activations::from_channels_first(residual)?)
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
            time: Linear::load_f32(loader, &part("emb_layers.1"), time, outputs)?,
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

    /// `x (batch, height, width, inputs)`.
    fn forward(&self, x: &Activations, call: &mut Call) -> Result<Activations> {
        let time = call.time()?;
        let ends = Ends { image_bias: Some(&time), ..Ends::default() };
        let h = self.conv_1.forward_normed(&self.norm_1, x, &ends)?;
        match &self.skip {
            Some(skip) => self.conv_2.forward_normed(&self.norm_2, &h, &Ends::add(&skip.forward(x)?)),
            None => self.conv_2.forward_normed(&self.norm_2, &h, &Ends::add(x)),
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

    /// `x (batch, height, width, channels)`.
    fn forward(&self, x: &Activations, call: &mut Call) -> Result<Activations> {
        let (batch, height, width, channels) = x.dims4()?;
        let h = self.proj_in.forward(&self.norm.forward(x)?)?;
        let mut h = h.reshaped([batch, height * width, channels])?;
        for block in &self.blocks {
            h = block.forward(h, call)?;
        }
        self.proj_out.forward_with(&h.reshaped([batch, height, width, channels])?, &Ends::add(x))
    }
}

/// Self-attention, cross-attention, feed-forward.
struct TransformerBlock {
    norm_1: LayerNorm,
    attention_1: Attention,
    norm_2: LayerNorm,
    attention_2: Attention,
    norm_3: LayerNorm,
    feed_in: GatedLinear,
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
            feed_in: GatedLinear::load(loader, &part("ff.net.0.proj"), channels, inner)?,
            feed_out: Linear::load(loader, &part("ff.net.2"), inner, channels)?,
        })
    }

    fn bytes(&self) -> usize {
        let norms = self.norm_1.bytes() + self.norm_2.bytes() + self.norm_3.bytes();
        let attention = self.attention_1.bytes() + self.attention_2.bytes();
        norms + attention + self.feed_in.bytes() + self.feed_out.bytes()
    }

    fn forward(&self, x: Activations, call: &mut Call) -> Result<Activations> {
        let precision = x.precision();
        let h = self.norm_1.forward(&x, precision)?;
        let h = attention(&self.attention_1.query.forward(&h)?, &self.attention_1.keys(&h)?, false)?;
        let h = self.attention_1.out.forward_with(&h, &Ends::add(&x))?;
        drop(x);
        let x = h;
        let q = self.attention_2.query.forward(&self.norm_2.forward(&x, precision)?)?;
        let h = attention_of_each(&q, &call.keys(), false)?;
        let x = self.attention_2.out.forward_with(&h, &Ends::add(&x))?;
        let h = self.feed_in.forward(&self.norm_3.forward(&x, precision)?)?;
        self.feed_out.forward_with(&h, &Ends::add(&x))
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

    /// Keys and values of `x (batch, tokens, context width)`.
    fn keys(&self, x: &Activations) -> Result<Keys> {
        Keys::new(&self.key.forward(x)?, &self.value.forward(x)?, self.heads)
    }
}

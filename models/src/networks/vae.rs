//! The autoencoder between pixels and latents (Rombach et al. 2022), in the LDM key layout.

use candle_core::{Result, Tensor, bail};

use super::{count, dim};
use crate::files::{Loader, SafeTensors};
use crate::nn::{Activations, Conv2d, ConvConfig, Ends, GroupNorm, Keys, Linear, Precision, attention};

/// What can be told from the tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaeConfig {
    /// Latent channels.
    pub latent_channels: usize,
    /// Channels of each level, the full-size one first.
    pub widths: Vec<usize>,
    /// Residual blocks of each level of the encoder; the decoder has one more.
    pub blocks: usize,
}

impl VaeConfig {
    /// Stable Diffusion 1.5.
    pub fn sd15() -> Self {
        Self { latent_channels: 4, widths: vec![128, 256, 512, 512], blocks: 2 }
    }

    /// Reads it from the tensors under `prefix`.
    pub fn detect(file: &SafeTensors, prefix: &str) -> crate::Result<Self> {
        let level = |level: usize| format!("{prefix}encoder.down.{level}.");
        let width = |index: usize| dim(file, &format!("{}block.0.conv1.weight", level(index)), 0);
        // At least one, so that a file without an encoder is told what it lacks.
        let levels = count(file, level).max(1);
        Ok(Self {
            latent_channels: dim(file, &format!("{prefix}post_quant_conv.weight"), 0)?,
            widths: (0..levels).map(width).collect::<crate::Result<_>>()?,
            blocks: count(file, |block| format!("{}block.{block}.", level(0))),
        })
    }

    /// Pixels of one latent's side.
    pub fn scale(&self) -> usize {
        let halvings = self.widths.len().saturating_sub(1) as u32;
        1usize.checked_shl(halvings).unwrap_or(usize::MAX)
    }
}

/// Both directions.
pub struct Vae {
    config: VaeConfig,
    encoder: Encoder,
    decoder: Decoder,
    quant: Linear,
    post_quant: Linear,
    precision: Precision,
}

/// Where an encoder puts an image: a normal distribution per latent value.
pub struct Posterior {
    /// `(batch, latent channels, height, width)`.
    pub mean: Tensor,
    /// Logarithm of the variance, clamped to [−30, 20], of the same shape.
    pub logvar: Tensor,
}

impl Vae {
    /// Latents in tiles of this side are decoded alone once an image is larger than [`Self::WHOLE`].
    const TILE: usize = 96;
    /// Latents that neighbouring tiles share; the seam is blended across them.
    const OVERLAP: usize = 24;
    /// Latents (height × width) up to which an image is decoded whole: 1536 × 1536 pixels.
    const WHOLE: usize = 192 * 192;

    /// Reads the tensors under `prefix`.
    pub fn load(loader: &Loader, prefix: &str, config: VaeConfig) -> crate::Result<Self> {
        let latent = config.latent_channels;
        Ok(Self {
            encoder: Encoder::load(loader, &format!("{prefix}encoder"), &config)?,
            decoder: Decoder::load(loader, &format!("{prefix}decoder"), &config)?,
            quant: Linear::load_f32(loader, &format!("{prefix}quant_conv"), 2 * latent, 2 * latent)?,
            post_quant: Linear::load_f32(loader, &format!("{prefix}post_quant_conv"), latent, latent)?,
            precision: loader.precision(),
            config,
        })
    }

    /// What this network is.
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// Bytes of its weights.
    pub fn bytes(&self) -> usize {
        self.encoder.bytes() + self.decoder.bytes() + self.quant.bytes() + self.post_quant.bytes()
    }

    /// Bytes that activations take while one image of this many latents is decoded. The largest are those at full
    /// size: a residual block's input with the second level's channels, its norm, and two of the first level's.
    pub fn activation_bytes(&self, height: usize, width: usize) -> u64 {
        let whole = height * width;
        let latents = if whole <= Self::WHOLE { whole } else { Self::TILE * Self::TILE };
        let pixels = latents * self.config.scale().pow(2);
        let first = self.config.widths.first().copied().unwrap_or_default();
        let second = self.config.widths.get(1).copied().unwrap_or(first);
        let image = whole * self.config.scale().pow(2) * 8;
        ((pixels * (2 * second + 2 * first) + image) * self.precision.size()) as u64
    }

    /// Images `(batch, 3, height, width)` in [−1, 1] → the distribution of their latents. Height and width are
    /// multiples of 8.
    pub fn encode(&self, images: &Tensor) -> Result<Posterior> {
        let images = Activations::from_channels_first(images)?;
        let moments = self.quant.forward(&self.encoder.forward(&images, self.precision)?)?;
        let moments = moments.to_channels_first()?;
        let latent = self.config.latent_channels;
        let mean = moments.narrow(1, 0, latent)?.contiguous()?;
        let logvar = moments.narrow(1, latent, latent)?.contiguous()?.clamp(-30f32, 20f32)?;
        Ok(Posterior { mean, logvar })
    }

    /// Latents `(batch, latent channels, height, width)`, already divided by the scaling factor → images
    /// `(batch, 3, 8 · height, 8 · width)`, about [−1, 1].
    pub fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        let (_, _, height, width) = latents.dims4()?;
        if height * width <= Self::WHOLE {
            self.decode_whole(latents)
        } else {
            self.decode_tiled(latents, Self::TILE, Self::OVERLAP)
        }
    }

    fn decode_whole(&self, latents: &Tensor) -> Result<Tensor> {
        let z = self.post_quant.forward(&Activations::from_channels_first(latents)?)?;
        self.decoder.forward(&z, self.precision)?.to_channels_first()
    }

    /// As [`Self::decode`], in square tiles of `tile` latents that overlap by `overlap` and are blended there,
    /// so that memory does not grow with the image. Norms see one tile at a time, so large flat areas can
    /// differ slightly from tile to tile before they are blended. A tile is larger than what it shares.
    pub fn decode_tiled(&self, latents: &Tensor, tile: usize, overlap: usize) -> Result<Tensor> {
        let (batch, _, height, width) = latents.dims4()?;
        if tile <= overlap {
            bail!("vae: tiles of {tile} latents cannot overlap by {overlap}");
        }
        let scale = self.config.scale();
        let (rows, columns) = (height * scale, width * scale);
        let mut sum = vec![0f32; batch * 3 * rows * columns];
        let mut weight = vec![0f32; rows * columns];
        for top in tile_starts(height, tile, overlap) {
            for left in tile_starts(width, tile, overlap) {
                let (tall, wide) = (tile.min(height - top), tile.min(width - left));
                let part = latents.narrow(2, top, tall)?.narrow(3, left, wide)?.contiguous()?;
                let part = self.decode_whole(&part)?.flatten_all()?.to_vec1::<f32>()?;
                let ramp = overlap * scale;
                let (tall, wide, top, left) = (tall * scale, wide * scale, top * scale, left * scale);
                for y in 0..tall {
                    for x in 0..wide {
                        let share = edge(y, tall, ramp) * edge(x, wide, ramp);
                        let to = (top + y) * columns + left + x;
                        weight[to] += share;
                        for plane in 0..batch * 3 {
                            sum[plane * rows * columns + to] += share * part[(plane * tall + y) * wide + x];
                        }
                    }
                }
            }
        }
        for plane in sum.chunks_exact_mut(rows * columns) {
            for (value, weight) in plane.iter_mut().zip(&weight) {
                *value /= weight;
            }
        }
        Tensor::from_vec(sum, (batch, 3, rows, columns), latents.device())
    }
}

/// First latents of the tiles that cover `size`, evenly spread, overlapping by at least `overlap`.
fn tile_starts(size: usize, tile: usize, overlap: usize) -> Vec<usize> {
    if size <= tile {
        return vec![0];
    }
    let count = (size - overlap).div_ceil(tile - overlap);
    (0..count).map(|index| index * (size - tile) / (count - 1)).collect()
}

/// A pixel's weight: rising from the tile's edge over `ramp` pixels.
fn edge(position: usize, size: usize, ramp: usize) -> f32 {
    let distance = position.min(size - 1 - position) + 1;
    (distance as f32 / ramp.max(1) as f32).min(1.0)
}

struct Encoder {
    conv_in: Conv2d,
    levels: Vec<(Vec<Residual>, Option<Conv2d>)>,
    middle: Middle,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Encoder {
    fn load(loader: &Loader, name: &str, config: &VaeConfig) -> crate::Result<Self> {
        let first = config.widths.first().copied().unwrap_or_default();
        let mut channels = first;
        let mut levels = vec![];
        for (level, width) in config.widths.iter().enumerate() {
            let mut blocks = vec![];
            for block in 0..config.blocks {
                blocks.push(Residual::load(
                    loader,
                    &format!("{name}.down.{level}.block.{block}"),
                    channels,
                    *width,
                )?);
                channels = *width;
            }
            let last = level + 1 == config.widths.len();
            let downsample = (!last)
                .then(|| {
                    // Padded below and to the right only, as the original is.
                    let config =
                        ConvConfig { stride: 2, pad_before: 0, ..ConvConfig::same(channels, channels) };
                    Conv2d::load(loader, &format!("{name}.down.{level}.downsample.conv"), config)
                })
                .transpose()?;
            levels.push((blocks, downsample));
        }
        let outputs = 2 * config.latent_channels;
        Ok(Self {
            conv_in: Conv2d::load_f32(loader, &format!("{name}.conv_in"), ConvConfig::same(3, first))?,
            levels,
            middle: Middle::load(loader, &format!("{name}.mid"), channels)?,
            norm_out: GroupNorm::load(loader, &format!("{name}.norm_out"), channels, Residual::EPSILON)?,
            conv_out: Conv2d::load(loader, &format!("{name}.conv_out"), ConvConfig::same(channels, outputs))?,
        })
    }

    fn bytes(&self) -> usize {
        levels_bytes(&self.levels)
            + self.conv_in.bytes()
            + self.middle.bytes()
            + self.norm_out.bytes()
            + self.conv_out.bytes()
    }

    /// From f32 to f32.
    fn forward(&self, x: &Activations, precision: Precision) -> Result<Activations> {
        let mut h = self.conv_in.forward(x)?.to(precision);
        for (blocks, downsample) in &self.levels {
            for block in blocks {
                h = block.forward(h)?;
            }
            if let Some(conv) = downsample {
                h = conv.forward(&h)?;
            }
        }
        h = self.middle.forward(h)?;
        self.conv_out.forward_normed(&self.norm_out, &h, &Ends { widen: true, ..Ends::default() })
    }
}

struct Decoder {
    conv_in: Conv2d,
    middle: Middle,
    levels: Vec<(Vec<Residual>, Option<Conv2d>)>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Decoder {
    fn load(loader: &Loader, name: &str, config: &VaeConfig) -> crate::Result<Self> {
        let deepest = config.widths.last().copied().unwrap_or_default();
        let mut channels = deepest;
        let mut levels = vec![];
        for (level, width) in config.widths.iter().enumerate().rev() {
            let mut blocks = vec![];
            for block in 0..=config.blocks {
                blocks.push(Residual::load(
                    loader,
                    &format!("{name}.up.{level}.block.{block}"),
                    channels,
                    *width,
                )?);
                channels = *width;
            }
            let upsample = (level > 0)
                .then(|| {
                    let config = ConvConfig { upsample: 2, ..ConvConfig::same(channels, channels) };
                    Conv2d::load(loader, &format!("{name}.up.{level}.upsample.conv"), config)
                })
                .transpose()?;
            levels.push((blocks, upsample));
        }
        Ok(Self {
            conv_in: Conv2d::load_f32(
                loader,
                &format!("{name}.conv_in"),
                ConvConfig::same(config.latent_channels, deepest),
            )?,
            middle: Middle::load(loader, &format!("{name}.mid"), deepest)?,
            levels,
            norm_out: GroupNorm::load(loader, &format!("{name}.norm_out"), channels, Residual::EPSILON)?,
            conv_out: Conv2d::load(loader, &format!("{name}.conv_out"), ConvConfig::same(channels, 3))?,
        })
    }

    fn bytes(&self) -> usize {
        levels_bytes(&self.levels)
            + self.conv_in.bytes()
            + self.middle.bytes()
            + self.norm_out.bytes()
            + self.conv_out.bytes()
    }

    /// From f32 to f32.
    fn forward(&self, z: &Activations, precision: Precision) -> Result<Activations> {
        let mut h = self.middle.forward(self.conv_in.forward(z)?.to(precision))?;
        for (blocks, upsample) in &self.levels {
            for block in blocks {
                h = block.forward(h)?;
            }
            if let Some(conv) = upsample {
                h = conv.forward(&h)?;
            }
        }
        self.conv_out.forward_normed(&self.norm_out, &h, &Ends { widen: true, ..Ends::default() })
    }
}

fn levels_bytes(levels: &[(Vec<Residual>, Option<Conv2d>)]) -> usize {
    let level = |(blocks, conv): &(Vec<Residual>, Option<Conv2d>)| {
        blocks.iter().map(Residual::bytes).sum::<usize>() + conv.as_ref().map_or(0, Conv2d::bytes)
    };
    levels.iter().map(level).sum()
}

/// Residual block, attention over all pixels, residual block.
struct Middle {
    block_1: Residual,
    norm: GroupNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    block_2: Residual,
}

impl Middle {
    fn load(loader: &Loader, name: &str, channels: usize) -> crate::Result<Self> {
        let linear = |part: &str| Linear::load(loader, &format!("{name}.attn_1.{part}"), channels, channels);
        Ok(Self {
            block_1: Residual::load(loader, &format!("{name}.block_1"), channels, channels)?,
            norm: GroupNorm::load(loader, &format!("{name}.attn_1.norm"), channels, Residual::EPSILON)?,
            query: linear("q")?,
            key: linear("k")?,
            value: linear("v")?,
            out: linear("proj_out")?,
            block_2: Residual::load(loader, &format!("{name}.block_2"), channels, channels)?,
        })
    }

    fn bytes(&self) -> usize {
        let attention =
            [&self.query, &self.key, &self.value, &self.out].map(Linear::bytes).iter().sum::<usize>();
        self.block_1.bytes() + self.norm.bytes() + attention + self.block_2.bytes()
    }

    fn forward(&self, x: Activations) -> Result<Activations> {
        let x = self.block_1.forward(x)?;
        let (batch, height, width, channels) = x.dims4()?;
        let h = self.norm.forward(&x)?.reshaped([batch, height * width, channels])?;
        let keys = Keys::new(&self.key.forward(&h)?, &self.value.forward(&h)?, 1)?;
        let h = attention(&self.query.forward(&h)?, &keys, false)?;
        let h = self.out.forward_with(&h.reshaped([batch, height, width, channels])?, &Ends::add(&x))?;
        drop(x);
        self.block_2.forward(h)
    }
}

/// Two convolutions and a way around.
struct Residual {
    norm_1: GroupNorm,
    conv_1: Conv2d,
    norm_2: GroupNorm,
    conv_2: Conv2d,
    skip: Option<Linear>,
}

impl Residual {
    const EPSILON: f32 = 1e-6;

    fn load(loader: &Loader, name: &str, inputs: usize, outputs: usize) -> crate::Result<Self> {
        let part = |part: &str| format!("{name}.{part}");
        Ok(Self {
            norm_1: GroupNorm::load(loader, &part("norm1"), inputs, Self::EPSILON)?,
            conv_1: Conv2d::load(loader, &part("conv1"), ConvConfig::same(inputs, outputs))?,
            norm_2: GroupNorm::load(loader, &part("norm2"), outputs, Self::EPSILON)?,
            conv_2: Conv2d::load(loader, &part("conv2"), ConvConfig::same(outputs, outputs))?,
            skip: (inputs != outputs)
                .then(|| Linear::load(loader, &part("nin_shortcut"), inputs, outputs))
                .transpose()?,
        })
    }

    fn bytes(&self) -> usize {
        let skip = self.skip.as_ref().map_or(0, Linear::bytes);
        self.conv_1.bytes() + self.conv_2.bytes() + self.norm_1.bytes() + self.norm_2.bytes() + skip
    }

    /// Takes its input, and names no intermediate twice: at full size each is the largest there is, and must be freed
    /// as soon as the next one is made.
    fn forward(&self, x: Activations) -> Result<Activations> {
        let h = self.conv_1.forward_normed(&self.norm_1, &x, &Ends::default())?;
        let x = match &self.skip {
            Some(skip) => {
                let around = skip.forward(&x)?;
                drop(x);
                around
            }
            None => x,
        };
        self.conv_2.forward_normed(&self.norm_2, &h, &Ends::add(&x))
    }
}

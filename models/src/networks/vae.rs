//! The autoencoder between pixels and latents (Rombach et al. 2022), in the LDM key layout.

use super::detect::{count, dim};
use crate::error::{Error, Result};
use crate::files::Tensors;
use crate::nn::{
    Activations, Conv2d, ConvConfig, Device, Epilogue, GroupNorm, Linear, Loader, Precision, Run, Wrap,
    attention, keys, upload,
};
use crate::tensor::Tensor;
use crate::tiles::{Blend, Tiling};

/// What can be told from the tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaeConfig {
    /// Latent channels.
    pub latent_channels: usize,
    /// Channels of each level, the full-size one first.
    pub widths: Vec<usize>,
    /// Residual blocks of each level of the encoder; the decoder has one more.
    pub blocks: usize,
    /// Whether there is an encoder: drawing from text needs none, and some files go without.
    pub encoder: bool,
}

impl VaeConfig {
    /// Stable Diffusion 1.5.
    pub fn sd15() -> Self {
        Self { latent_channels: 4, widths: vec![128, 256, 512, 512], blocks: 2, encoder: true }
    }

    /// Reads it from the tensors under `prefix`: those of the encoder, or of the decoder where there is no encoder.
    pub fn detect(file: &Tensors, prefix: &str) -> Result<Self> {
        let encoder = file.has_under(&format!("{prefix}encoder."));
        let side = if encoder { "encoder.down" } else { "decoder.up" };
        let level = |level: usize| format!("{prefix}{side}.{level}.");
        let width = |index: usize| dim(file, &format!("{}block.0.conv1.weight", level(index)), 0);
        // At least one, so that a file without levels is told what it lacks.
        let levels = count(file, level).max(1);
        let blocks = count(file, |block| format!("{}block.{block}.", level(0)));
        Ok(Self {
            latent_channels: dim(file, &format!("{prefix}post_quant_conv.weight"), 0)?,
            widths: (0..levels).map(width).collect::<Result<_>>()?,
            blocks: if encoder { blocks } else { blocks.saturating_sub(1) },
            encoder,
        })
    }

    /// Pixels of one latent's side.
    pub fn scale(&self) -> usize {
        let halvings = self.widths.len().saturating_sub(1) as u32;
        1usize.checked_shl(halvings).unwrap_or(usize::MAX)
    }
}

/// Both directions. A copy shares its weights.
#[derive(Clone)]
pub struct Vae {
    config: VaeConfig,
    /// With what makes its output the moments of a distribution.
    encoder: Option<(Encoder, Linear)>,
    decoder: Decoder,
    post_quant: Linear,
    device: Device,
    precision: Precision,
    /// What stands beyond a picture's border.
    wrap: Wrap,
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
    pub fn load(loader: &Loader, prefix: &str, config: VaeConfig) -> Result<Self> {
        let latent = config.latent_channels;
        let encoder = || -> Result<_> {
            let encoder = Encoder::load(loader, &format!("{prefix}encoder"), &config)?;
            Ok((encoder, Linear::load_f32(loader, &format!("{prefix}quant_conv"), 2 * latent, 2 * latent)?))
        };
        Ok(Self {
            encoder: config.encoder.then(encoder).transpose()?,
            decoder: Decoder::load(loader, &format!("{prefix}decoder"), &config)?,
            post_quant: Linear::load_f32(loader, &format!("{prefix}post_quant_conv"), latent, latent)?,
            device: loader.device().clone(),
            precision: loader.precision(),
            wrap: Wrap::default(),
            config,
        })
    }

    /// The same network, whose pictures go on beyond their border with the other end, so that they can be laid side by side.
    #[must_use]
    pub fn wrapping(&self, wrap: Wrap) -> Self {
        let mut of = Self { wrap, ..self.clone() };
        let (decoder, encoder) = (&mut of.decoder, of.encoder.as_mut().map(|(encoder, _)| encoder));
        decoder.conv_in.set_wrap(wrap);
        decoder.conv_out.set_wrap(wrap);
        decoder.middle.set_wrap(wrap);
        set_wrap(&mut decoder.levels, wrap);
        if let Some(encoder) = encoder {
            encoder.conv_in.set_wrap(wrap);
            encoder.conv_out.set_wrap(wrap);
            encoder.middle.set_wrap(wrap);
            // A level's last convolution is padded with zeros on one side, as the original does it apart from the convolution.
            encoder.levels.iter_mut().flat_map(|(blocks, _)| blocks).for_each(|block| block.set_wrap(wrap));
        }
        of
    }

    /// What this network is.
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// Where it is.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Decodes one image of this many latents to nowhere: for a network on a device that only counts.
    pub fn try_out(&self, (height, width): (usize, usize)) -> Result<()> {
        let (height, width) = if height * width <= Self::WHOLE {
            (height, width)
        } else {
            (Self::TILE.min(height), Self::TILE.min(width))
        };
        let z = self.device.upload(&[], &[1, height, width, self.config.latent_channels])?;
        let z = self.post_quant.forward(&z)?;
        self.decoder.forward(&self.device, z, self.precision, &Run::WHOLE).map(drop)
    }

    /// Bytes on the host that an image of this many latents takes while it is decoded: what comes from the device, what
    /// it becomes, and, in tiles, the sums.
    pub fn host_bytes(&self, (height, width): (usize, usize)) -> u64 {
        let pixels = |latents: usize| (latents * self.config.scale().pow(2)) as u64;
        let image = pixels(height * width);
        if height * width <= Self::WHOLE {
            2 * 3 * 4 * image
        } else {
            (3 + 1) * 4 * image + 2 * 3 * 4 * pixels(Self::TILE.pow(2))
        }
    }

    /// Images `(batch, 3, height, width)` in [−1, 1] → the distribution of their latents. Height and width are
    /// multiples of 8. An error where the file has no encoder.
    pub fn encode(&self, images: &Tensor, run: &Run) -> Result<Posterior> {
        let (_, _, rows, columns) = images.dims4()?;
        let scale = self.config.scale();
        if (rows / scale) * (columns / scale) <= Self::WHOLE {
            self.posterior(&self.moments(images, run)?)
        } else {
            self.encode_tiled(images, Self::TILE, Self::OVERLAP, run)
        }
    }

    /// Mean and logarithm of the variance, `(batch, 2 · latent channels, height / 8, width / 8)`.
    fn moments(&self, images: &Tensor, run: &Run) -> Result<Tensor> {
        let Some((encoder, quant)) = &self.encoder else {
            let text = "this model's VAE has no encoder, so it cannot start from a picture; use one that has";
            return Err(Error::Unsupported(text.to_owned()));
        };
        run.on(&self.device, || {
            let images = upload(&self.device, &images.to_channels_last()?)?;
            let encoded = encoder.forward(&self.device, images, self.precision, run)?;
            self.download(&quant.forward(&encoded)?)
        })
    }

    fn posterior(&self, moments: &Tensor) -> Result<Posterior> {
        let latent = self.config.latent_channels;
        let mean = moments.narrow(1, 0, latent)?;
        let logvar = moments.narrow(1, latent, latent)?.map(|value| value.clamp(-30.0, 20.0));
        Ok(Posterior { mean, logvar })
    }

    /// Latents `(batch, latent channels, height, width)`, already divided by the scaling factor → images
    /// `(batch, 3, 8 · height, 8 · width)`, about [−1, 1].
    pub fn decode(&self, latents: &Tensor, run: &Run) -> Result<Tensor> {
        let (_, _, height, width) = latents.dims4()?;
        if height * width <= Self::WHOLE {
            return self.decode_whole(latents, run);
        }
        if self.wrap == Wrap::default() {
            return self.decode_tiled(latents, Self::TILE, Self::OVERLAP, run);
        }
        // Tiles have no other end to go on with: the picture gets one first, which is cut off again.
        let (more_y, more_x) =
            (usize::from(self.wrap.y) * Self::OVERLAP, usize::from(self.wrap.x) * Self::OVERLAP);
        let larger = gone_on(&gone_on(latents, 2, more_y)?, 3, more_x)?;
        let picture = self.wrapping(Wrap::default()).decode_tiled(&larger, Self::TILE, Self::OVERLAP, run)?;
        let scale = self.config.scale();
        picture.narrow(2, more_y * scale, height * scale)?.narrow(3, more_x * scale, width * scale)
    }

    fn decode_whole(&self, latents: &Tensor, run: &Run) -> Result<Tensor> {
        run.on(&self.device, || {
            let z = self.post_quant.forward(&upload(&self.device, &latents.to_channels_last()?)?)?;
            self.download(&self.decoder.forward(&self.device, z, self.precision, run)?)
        })
    }

    /// A picture of the device.
    fn download(&self, x: &Activations) -> Result<Tensor> {
        Tensor::new(self.device.download(x)?, x.dims())?.to_channels_first()
    }

    /// As [`Self::decode`], in square tiles of `tile` latents that overlap by `overlap` and are blended there,
    /// so that memory does not grow with the image. Norms see one tile at a time, so large flat areas can
    /// differ slightly from tile to tile before they are blended. A tile is larger than what it shares.
    pub fn decode_tiled(&self, latents: &Tensor, tile: usize, overlap: usize, run: &Run) -> Result<Tensor> {
        let (batch, _, height, width) = latents.dims4()?;
        let (tiling, scale) = (Tiling::new(tile, overlap)?, self.config.scale());
        let mut image = Blend::new([batch, 3, height * scale, width * scale], tiling.overlap() * scale);
        for tile in tiling.tiles(height, width) {
            let part = latents.narrow(2, tile.top, tile.height)?.narrow(3, tile.left, tile.width)?;
            image.add(tile.scaled(scale), &self.decode_whole(&part, run)?)?;
        }
        image.finish()
    }

    /// As [`Self::encode`], in square tiles that become `tile` latents each and overlap by `overlap` of them; as
    /// [`Self::decode_tiled`] in all else.
    pub fn encode_tiled(&self, images: &Tensor, tile: usize, overlap: usize, run: &Run) -> Result<Posterior> {
        let (batch, _, rows, columns) = images.dims4()?;
        let (tiling, scale) = (Tiling::new(tile, overlap)?, self.config.scale());
        let (height, width) = (rows / scale, columns / scale);
        let dims = [batch, 2 * self.config.latent_channels, height, width];
        let mut moments = Blend::new(dims, tiling.overlap());
        for tile in tiling.tiles(height, width) {
            let cut = tile.scaled(scale);
            let part = images.narrow(2, cut.top, cut.height)?.narrow(3, cut.left, cut.width)?;
            moments.add(tile, &self.moments(&part, run)?)?;
        }
        self.posterior(&moments.finish()?)
    }
}

#[derive(Clone)]
struct Encoder {
    conv_in: Conv2d,
    levels: Vec<(Vec<Residual>, Option<Conv2d>)>,
    middle: Middle,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Encoder {
    fn load(loader: &Loader, name: &str, config: &VaeConfig) -> Result<Self> {
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

    /// From f32 to f32.
    fn forward(
        &self,
        device: &Device,
        x: Activations,
        precision: Precision,
        run: &Run,
    ) -> Result<Activations> {
        run.enter(device, format_args!("vae.encoder.in"))?;
        let mut h = device.convert(&self.conv_in.forward(&x)?, precision)?;
        drop(x);
        for (level, (blocks, downsample)) in self.levels.iter().enumerate() {
            for (index, block) in blocks.iter().enumerate() {
                run.enter(device, format_args!("vae.encoder.{level}.{index}"))?;
                h = block.forward(h)?;
            }
            if let Some(conv) = downsample {
                h = conv.forward(&h)?;
            }
        }
        run.enter(device, format_args!("vae.encoder.middle"))?;
        h = self.middle.forward(device, h)?;
        self.conv_out.forward_normed(&self.norm_out, &h, &Epilogue::widened())
    }
}

#[derive(Clone)]
struct Decoder {
    conv_in: Conv2d,
    middle: Middle,
    levels: Vec<(Vec<Residual>, Option<Conv2d>)>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Decoder {
    fn load(loader: &Loader, name: &str, config: &VaeConfig) -> Result<Self> {
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

    /// From f32 to f32.
    fn forward(
        &self,
        device: &Device,
        z: Activations,
        precision: Precision,
        run: &Run,
    ) -> Result<Activations> {
        run.enter(device, format_args!("vae.decoder.middle"))?;
        let mut h = device.convert(&self.conv_in.forward(&z)?, precision)?;
        drop(z);
        h = self.middle.forward(device, h)?;
        for (level, (blocks, upsample)) in self.levels.iter().enumerate() {
            for (index, block) in blocks.iter().enumerate() {
                run.enter(device, format_args!("vae.decoder.{level}.{index}"))?;
                h = block.forward(h)?;
            }
            if let Some(conv) = upsample {
                h = conv.forward(&h)?;
            }
        }
        run.enter(device, format_args!("vae.decoder.last"))?;
        self.conv_out.forward_normed(&self.norm_out, &h, &Epilogue::widened())
    }
}

/// With `more` places before and behind along a dimension, from the other end.
fn gone_on(x: &Tensor, dimension: usize, more: usize) -> Result<Tensor> {
    let size = x.dim(dimension);
    let more = more.min(size);
    let (before, behind) = (x.narrow(dimension, size - more, more)?, x.narrow(dimension, 0, more)?);
    Tensor::cat(&[&before, x, &behind], dimension)
}

fn set_wrap(levels: &mut [(Vec<Residual>, Option<Conv2d>)], wrap: Wrap) {
    for (blocks, conv) in levels {
        for block in blocks {
            block.set_wrap(wrap);
        }
        if let Some(conv) = conv {
            conv.set_wrap(wrap);
        }
    }
}

/// Residual block, attention over all pixels, residual block.
#[derive(Clone)]
struct Middle {
    block_1: Residual,
    attention: PixelAttention,
    block_2: Residual,
}

impl Middle {
    fn load(loader: &Loader, name: &str, channels: usize) -> Result<Self> {
        Ok(Self {
            block_1: Residual::load(loader, &format!("{name}.block_1"), channels, channels)?,
            attention: PixelAttention::load(loader, &format!("{name}.attn_1"), channels)?,
            block_2: Residual::load(loader, &format!("{name}.block_2"), channels, channels)?,
        })
    }

    fn set_wrap(&mut self, wrap: Wrap) {
        self.block_1.set_wrap(wrap);
        self.block_2.set_wrap(wrap);
    }

    fn forward(&self, device: &Device, x: Activations) -> Result<Activations> {
        let x = self.attention.forward(device, &self.block_1.forward(x)?)?;
        self.block_2.forward(x)
    }
}

/// Attention of one head over all pixels, and a way around.
#[derive(Clone)]
pub(super) struct PixelAttention {
    norm: GroupNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
}

impl PixelAttention {
    pub(super) fn load(loader: &Loader, name: &str, channels: usize) -> Result<Self> {
        let linear = |part: &str| Linear::load(loader, &format!("{name}.{part}"), channels, channels);
        Ok(Self {
            norm: GroupNorm::load(loader, &format!("{name}.norm"), channels, Residual::EPSILON)?,
            query: linear("q")?,
            key: linear("k")?,
            value: linear("v")?,
            out: linear("proj_out")?,
        })
    }

    pub(super) fn forward(&self, device: &Device, x: &Activations) -> Result<Activations> {
        let (batch, height, width, channels) = x.dims4()?;
        let h = self.norm.forward(x)?.reshaped([batch, height * width, channels])?;
        let keys = keys(device, &self.key.forward(&h)?, &self.value.forward(&h)?, 1)?;
        let h = attention(device, &self.query.forward(&h)?, &keys, false)?;
        self.out.forward_with(&h.reshaped([batch, height, width, channels])?, &Epilogue::add(x))
    }
}

/// Two convolutions and a way around.
#[derive(Clone)]
pub(super) struct Residual {
    norm_1: GroupNorm,
    conv_1: Conv2d,
    norm_2: GroupNorm,
    conv_2: Conv2d,
    skip: Option<Linear>,
}

impl Residual {
    pub(super) const EPSILON: f32 = 1e-6;

    fn load(loader: &Loader, name: &str, inputs: usize, outputs: usize) -> Result<Self> {
        Self::load_around(loader, name, "nin_shortcut", (inputs, outputs))
    }

    /// Where the way around, which there is if channels change, is called `around`.
    pub(super) fn load_around(
        loader: &Loader,
        name: &str,
        around: &str,
        (inputs, outputs): (usize, usize),
    ) -> Result<Self> {
        let part = |part: &str| format!("{name}.{part}");
        Ok(Self {
            norm_1: GroupNorm::load(loader, &part("norm1"), inputs, Self::EPSILON)?,
            conv_1: Conv2d::load(loader, &part("conv1"), ConvConfig::same(inputs, outputs))?,
            norm_2: GroupNorm::load(loader, &part("norm2"), outputs, Self::EPSILON)?,
            conv_2: Conv2d::load(loader, &part("conv2"), ConvConfig::same(outputs, outputs))?,
            skip: (inputs != outputs)
                .then(|| Linear::load(loader, &part(around), inputs, outputs))
                .transpose()?,
        })
    }

    fn set_wrap(&mut self, wrap: Wrap) {
        self.conv_1.set_wrap(wrap);
        self.conv_2.set_wrap(wrap);
    }

    /// Takes its input, and names no intermediate twice: at full size each is the largest there is, and must be freed
    /// as soon as the next one is made.
    pub(super) fn forward(&self, x: Activations) -> Result<Activations> {
        let h = self.conv_1.forward_normed(&self.norm_1, &x, &Epilogue::default())?;
        let x = match &self.skip {
            Some(skip) => {
                let around = skip.forward(&x)?;
                drop(x);
                around
            }
            None => x,
        };
        self.conv_2.forward_normed(&self.norm_2, &h, &Epilogue::add(&x))
    }
}

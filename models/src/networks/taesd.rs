//! TAESD, the tiny autoencoder: latents to pixels in a hundredth of a VAE's work, less exact.
//!
//! Source: github.com/madebyollin/taesd, whose names are those of one sequence of layers, 0 to 19; A1111's
//! `taesd_decoder.pth` has them. diffusers' `AutoencoderTiny` counts the same layers without the clamp that stands first.
//! Only the decoder is built.

use std::sync::Arc;

use latentd_kernels::Activation;

use super::standalone::{Described, Entry, Found, Port, Side, Standalone};
use crate::error::{Error, Result, bail};
use crate::files::Tensors;
use crate::nn::{Activations, Conv2d, ConvConfig, Device, Epilogue, Loader, Precision, Run, upload};
use crate::tensor::Tensor;

/// What files call a decoder's layers: the beginning, and the number of the first convolution.
const NAMES: [(&str, usize); 4] = [("", 1), ("decoder.layers.", 0), ("decoder.", 1), ("taesd_decoder.", 1)];

/// Channels of all inner layers.
const WIDTH: usize = 64;

/// Layers of the sequence, counted from the first convolution.
const LAYERS: [Kind; 19] = [
    Kind::First,
    // ReLU: part of the first.
    Kind::Nothing,
    Kind::Block,
    Kind::Block,
    Kind::Block,
    // Enlarged: part of the convolution that follows.
    Kind::Nothing,
    Kind::Enlarge,
    Kind::Block,
    Kind::Block,
    Kind::Block,
    Kind::Nothing,
    Kind::Enlarge,
    Kind::Block,
    Kind::Block,
    Kind::Block,
    Kind::Nothing,
    Kind::Enlarge,
    Kind::Block,
    Kind::Last,
];

#[derive(Clone, Copy)]
enum Kind {
    First,
    Nothing,
    Block,
    Enlarge,
    Last,
}

enum Layer {
    /// With ReLU.
    First(Conv2d),
    /// Three convolutions and what they began with, each with ReLU.
    Block(Box<[Conv2d; 3]>),
    /// Twice as many rows and columns.
    Enlarge(Conv2d),
    Last(Conv2d),
}

/// The decoder.
pub struct Taesd {
    layers: Vec<Layer>,
    latent_channels: usize,
    device: Device,
    precision: Precision,
}

/// What can be told from the tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaesdConfig {
    prefix: &'static str,
    first: usize,
    /// Channels of its latents.
    pub latent_channels: usize,
}

impl TaesdConfig {
    /// Reads it from a file's tensors; `None` if it has no such decoder.
    pub fn detect(file: &Tensors) -> Option<Self> {
        NAMES.iter().find_map(|(prefix, first)| {
            let weight = |layer: usize| file.shape(&format!("{prefix}{}.weight", first + layer));
            let block = file.shape(&format!("{prefix}{}.conv.0.weight", first + 2));
            match (weight(0), block, weight(18)) {
                (
                    Some(&[WIDTH, latent_channels, 3, 3]),
                    Some(&[WIDTH, WIDTH, 3, 3]),
                    Some(&[3, WIDTH, 3, 3]),
                ) => Some(Self { prefix, first: *first, latent_channels }),
                _ => None,
            }
        })
    }
}

impl Taesd {
    /// Reads a file's decoder. An error if it has none.
    pub fn open(file: &Tensors, device: &Device, precision: Precision) -> Result<Self> {
        let none = "holds no TAESD decoder: its tensors are not those of taesd_decoder.pth";
        let config = TaesdConfig::detect(file).ok_or_else(|| Error::model(file.path(), none))?;
        let loaded = device.run(|| Self::load(&Loader::file(file, device, precision), config));
        // Asked first: a file cut off meanwhile also shows as strange weights.
        file.check_intact()?;
        loaded
    }

    /// Reads the decoder's tensors.
    fn load(loader: &Loader, config: TaesdConfig) -> Result<Self> {
        let latent_channels = config.latent_channels;
        let layers = LAYERS.iter().enumerate().filter_map(|(index, kind)| {
            let name = format!("{}{}", config.prefix, config.first + index);
            let same = ConvConfig::same(WIDTH, WIDTH);
            match kind {
                Kind::Nothing => None,
                Kind::First => {
                    let config = ConvConfig::same(latent_channels, WIDTH);
                    Some(Conv2d::load_f32(loader, &name, config).map(Layer::First))
                }
                Kind::Block => {
                    let part = |part: usize| Conv2d::load(loader, &format!("{name}.conv.{part}"), same);
                    let parts = || Ok(Layer::Block(Box::new([part(0)?, part(2)?, part(4)?])));
                    Some(parts())
                }
                Kind::Enlarge => {
                    let config = ConvConfig { upsample: 2, ..same };
                    Some(Conv2d::load_unbiased(loader, &name, config).map(Layer::Enlarge))
                }
                Kind::Last => {
                    let config = ConvConfig::same(WIDTH, 3);
                    Some(Conv2d::load(loader, &name, config).map(Layer::Last))
                }
            }
        });
        let layers = layers.collect::<Result<_>>()?;
        Ok(Self { layers, latent_channels, device: loader.device().clone(), precision: loader.precision() })
    }

    /// Where it is.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Latents `(batch, latent channels, height, width)` as the UNet has them, of the family's scale → images
    /// `(batch, 3, 8 · height, 8 · width)`, about [−1, 1].
    pub fn decode(&self, latents: &Tensor, run: &Run) -> Result<Tensor> {
        let (_, channels, ..) = latents.dims4()?;
        if channels != self.latent_channels {
            bail!("taesd: latents of {channels} channels, {} are decoded", self.latent_channels);
        }
        // Beyond ±3 latents say nothing more.
        let clamped = latents.map(|value| (value / 3.0).tanh() * 3.0).to_channels_last()?;
        run.on(&self.device, || {
            let image = self.forward(upload(&self.device, &clamped)?, run)?;
            let image = Tensor::new(self.device.download(&image)?, image.dims())?;
            Ok(image.to_channels_first()?.map(|value| value * 2.0 - 1.0))
        })
    }

    /// Bytes that decoding an image of this many latents takes: four maps of the picture's size at once, and the picture.
    pub fn activation_bytes((height, width): (usize, usize)) -> u64 {
        (height * width * 64 * 4 * (4 * WIDTH + 6)) as u64
    }

    fn forward(&self, mut x: Activations, run: &Run) -> Result<Activations> {
        let relu = Epilogue { activation: Activation::Relu, ..Epilogue::default() };
        for (index, layer) in self.layers.iter().enumerate() {
            run.enter(&self.device, format_args!("taesd.{index}"))?;
            x = match layer {
                Layer::First(conv) => self.device.convert(&conv.forward_with(&x, &relu)?, self.precision)?,
                Layer::Enlarge(conv) => conv.forward(&x)?,
                Layer::Last(conv) => conv.forward_with(&x, &Epilogue::widened())?,
                Layer::Block(block) => {
                    let [first, second, third] = &**block;
                    let h = second.forward_with(&first.forward_with(&x, &relu)?, &relu)?;
                    third.forward_with(&h, &Epilogue { residual: Some(&x), ..relu })?
                }
            };
        }
        Ok(x)
    }
}

/// TAESD as a network that stands alone.
struct TaesdFile(Described);

/// That of a file.
pub(super) fn find(file: &Tensors) -> Option<Result<Arc<dyn Found>>> {
    let channels = TaesdConfig::detect(file)?.latent_channels;
    let [batch, height, width] = ["batch", "height", "width"];
    let latents = Port {
        name: "latents",
        sides: vec![Side::Free(batch), Side::Fixed(channels), Side::Free(height), Side::Free(width)],
        about: "as the sampler has them",
    };
    let image = Port {
        name: "image",
        sides: vec![Side::Free(batch), Side::Fixed(3), Side::Times(8, height), Side::Times(8, width)],
        about: "red, green and blue, about -1 to 1",
    };
    let entries = vec![Entry { name: "", inputs: vec![latents], outputs: vec![image] }];
    Some(Ok(Arc::new(TaesdFile(Described { kind: "taesd", entries }))))
}

impl Found for TaesdFile {
    fn described(&self) -> &Described {
        &self.0
    }

    fn activation_bytes(&self, _entry: &Entry, inputs: &[Vec<usize>]) -> u64 {
        let Some([batch, _, height, width]) = inputs.first().map(Vec::as_slice) else { return 0 };
        let latents = height.checked_mul(*width).map_or(usize::MAX, |size| size.min(1 << 32));
        Taesd::activation_bytes((latents, 1)).saturating_mul(*batch as u64)
    }

    fn open(&self, file: &Tensors, device: &Device, precision: Precision) -> Result<Arc<dyn Standalone>> {
        Ok(Arc::new(Taesd::open(file, device, precision)?))
    }
}

impl Standalone for Taesd {
    fn run(&self, _entry: &Entry, inputs: &[Tensor], run: &Run) -> Result<Vec<Tensor>> {
        match inputs {
            [latents] => Ok(vec![self.decode(latents, run)?]),
            _ => bail!("taesd: {} inputs, one is taken", inputs.len()),
        }
    }
}

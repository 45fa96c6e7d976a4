//! A checkpoint in memory: text encoder, UNet and VAE, ready to draw.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use crate::files::{Loader, Prediction, SIDES, SafeTensors, architecture, resolution};
use crate::networks::clip::{ClipConfig, ClipText};
use crate::networks::unet::{UNet, UNetConfig};
use crate::networks::vae::{Vae, VaeConfig};
use crate::nn::Precision;
use crate::prompt::ConditioningCache;
use crate::sampling::ModelSigmas;
use crate::{Error, Result};

const CLIP: &str = "cond_stage_model.transformer.text_model.";
/// How some older files name the same.
const OLD_CLIP: &str = "cond_stage_model.transformer.";
const UNET: &str = "model.diffusion_model.";
const VAE: &str = "first_stage_model.";

/// Tensors that real files carry beside the three networks: a second copy of the weights, the schedule, and
/// leftovers of training. Names of the networks' own that no network uses are errors instead.
const HARMLESS: &[&str] = &[
    "cond_stage_model.transformer.text_model.embeddings.position_ids",
    "cond_stage_model.transformer.embeddings.position_ids",
    "first_stage_model.loss.",
    "first_stage_model.model_ema.",
];

/// A Stable Diffusion 1.x model, weights packed once for the kernels. All methods take `&self`, and a model can
/// be shared between threads.
pub struct Model {
    pub(super) clip: ClipText,
    pub(super) unet: UNet,
    pub(super) vae: Vae,
    pub(super) sigmas: ModelSigmas,
    pub(super) prediction: Prediction,
    pub(super) conditioning: ConditioningCache,
    precision: Precision,
    native_size: (usize, usize),
    dtype: String,
}

/// What a caller may want to know of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSummary {
    /// [`Model::ARCHITECTURE`].
    pub architecture: &'static str,
    /// Bytes the packed weights take in memory.
    pub weight_bytes: u64,
    /// The type most weights are stored in: "f16", "bf16" or "f32".
    pub dtype: String,
}

struct Configs {
    clip_prefix: &'static str,
    clip: ClipConfig,
    unet: UNetConfig,
    vae: VaeConfig,
    prediction: Prediction,
    native_size: (usize, usize),
}

impl Model {
    /// The architecture it draws with, as [`inspect`](crate::files::inspect) names it.
    pub const ARCHITECTURE: &'static str = "sd1";

    /// Pixels that a side of [`Self::native_size`] may have, whatever a file says.
    pub const NATIVE_SIDES: RangeInclusive<usize> = SIDES;

    /// The size of pictures that Stable Diffusion 1.x was trained on.
    const SD1_SIZE: (usize, usize) = (512, 512);

    /// Latents are multiplied by this before the UNet sees them.
    pub(super) const LATENT_SCALE: f64 = 0.18215;

    /// Reads a checkpoint file: one `.safetensors` in the LDM key layout. Names and shapes of all tensors are
    /// checked first, so that a file that is no such model costs nothing and one error names all that is wrong.
    /// It computes in `precision`; another one takes another model. A configuration beside it, `NAME.yaml`, may say
    /// that it predicts v; else marks in the file do.
    pub fn open(path: &Path, precision: Precision) -> Result<Self> {
        let file = SafeTensors::open(path)?;
        let prediction = Prediction::of_file(path, &file)?;
        Self::read(&file, prediction, precision)
    }

    /// The same of a checkpoint file's bytes in memory, with the same checks; errors call it `name`.
    pub fn from_bytes(name: impl Into<PathBuf>, bytes: Vec<u8>, precision: Precision) -> Result<Self> {
        let file = SafeTensors::from_bytes(name, bytes)?;
        Self::read(&file, Prediction::of(&file)?, precision)
    }

    fn read(file: &SafeTensors, prediction: Prediction, precision: Precision) -> Result<Self> {
        refuse_other_architectures(file)?;
        let clip_prefix = if file.has_under(CLIP) { CLIP } else { OLD_CLIP };
        let configs = Configs {
            clip_prefix,
            clip: ClipConfig::detect(file, clip_prefix)?,
            unet: UNetConfig::detect(file, UNET)?,
            vae: VaeConfig::detect(file, VAE)?,
            prediction,
            native_size: resolution(file.metadata()).unwrap_or(Self::SD1_SIZE),
        };
        check_sizes(file, &configs)?;
        let check = Loader::check(file).with_precision(precision);
        Self::build(&check, &configs, String::new())?;
        check.finish(&[clip_prefix, UNET, VAE], |name| {
            HARMLESS.iter().any(|prefix| name.starts_with(prefix))
        })?;
        let dtype = crate::files::main_dtype(file);
        let model = Self::build(&Loader::file(file).with_precision(precision), &configs, dtype);
        // Asked first: a file cut off meanwhile also shows as strange weights.
        file.check_intact()?;
        model
    }

    /// SD 1.5 at its real size with random f16 weights, for measurements.
    pub fn synthetic_sd15(precision: Precision) -> Result<Self> {
        let configs = Configs {
            clip_prefix: CLIP,
            clip: ClipConfig::SD15,
            unet: UNetConfig::sd15(),
            vae: VaeConfig::sd15(),
            prediction: Prediction::Epsilon,
            native_size: Self::SD1_SIZE,
        };
        Self::build(&Loader::random(15).with_precision(precision), &configs, "f16".to_owned())
    }

    fn build(loader: &Loader, configs: &Configs, dtype: String) -> Result<Self> {
        Ok(Self {
            clip: ClipText::load(loader, configs.clip_prefix, configs.clip.clone())?,
            unet: UNet::load(loader, UNET, configs.unet.clone())?,
            vae: Vae::load(loader, VAE, configs.vae.clone())?,
            sigmas: ModelSigmas::default(),
            prediction: configs.prediction,
            conditioning: ConditioningCache::default(),
            precision: loader.precision(),
            native_size: configs.native_size,
            dtype,
        })
    }

    /// What this model is.
    pub fn summary(&self) -> ModelSummary {
        let weight_bytes = self.clip.bytes() + self.unet.bytes() + self.vae.bytes();
        ModelSummary {
            architecture: Self::ARCHITECTURE,
            weight_bytes: weight_bytes as u64,
            dtype: self.dtype.clone(),
        }
    }

    /// Width and height in pixels of the pictures it was made to draw: as its file says in
    /// `modelspec.resolution`, else 512×512.
    pub fn native_size(&self) -> (usize, usize) {
        self.native_size
    }

    /// What its UNet predicts.
    pub fn prediction(&self) -> Prediction {
        self.prediction
    }

    /// What it computes in.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The text encoder.
    pub fn clip(&self) -> &ClipText {
        &self.clip
    }

    /// The denoiser.
    pub fn unet(&self) -> &UNet {
        &self.unet
    }

    /// The autoencoder.
    pub fn vae(&self) -> &Vae {
        &self.vae
    }

    /// Bytes of activations that a picture of this size takes beside the weights: the larger of one UNet call
    /// with `samples` latents and the decoding of one image.
    pub fn activation_bytes(&self, width: usize, height: usize, samples: usize) -> u64 {
        let (rows, columns) = (height.div_ceil(8), width.div_ceil(8));
        self.unet.activation_bytes(rows, columns, samples).max(self.vae.activation_bytes(rows, columns))
    }
}

fn refuse_other_architectures(file: &SafeTensors) -> Result<()> {
    let what = match architecture(file).as_deref() {
        Some(Model::ARCHITECTURE) => return Ok(()),
        Some("sd1-inpainting") => "an inpainting checkpoint (9 input channels)".to_owned(),
        Some("sd1-pix2pix") => "an InstructPix2Pix checkpoint (8 input channels)".to_owned(),
        Some(other) => format!("an {} checkpoint", other.to_uppercase()),
        None => {
            let reason = "holds no Stable Diffusion checkpoint in the LDM layout: its tensors do not begin with \
                          model.diffusion_model., first_stage_model. and cond_stage_model.";
            return Err(Error::model(file.path(), reason));
        }
    };
    let path = file.path().display();
    Err(Error::Unsupported(format!(
        "{path}: is {what}; this version draws from text with SD 1.x checkpoints"
    )))
}

/// Relations between the parts that no single tensor shows.
fn check_sizes(file: &SafeTensors, configs: &Configs) -> Result<()> {
    let Configs { clip, unet, vae, .. } = configs;
    let wrong = |reason: String| Err(Error::model(file.path(), reason));
    if unet.context_width != 0 && unet.context_width != clip.width {
        return wrong(format!(
            "the UNet attends to width {}, the text encoder gives {}",
            unet.context_width, clip.width
        ));
    }
    if (unet.in_channels, unet.out_channels) != (vae.latent_channels, vae.latent_channels) {
        let (inputs, outputs, latents) = (unet.in_channels, unet.out_channels, vae.latent_channels);
        return wrong(format!(
            "the UNet takes {inputs} and gives {outputs} channels, the VAE's latents have {latents}"
        ));
    }
    if vae.scale() != 8 {
        return wrong(format!("the VAE scales by {}, Stable Diffusion's by 8", vae.scale()));
    }
    if clip.positions != 77 || clip.vocabulary <= crate::prompt::EOS as usize {
        let (tokens, positions) = (clip.vocabulary, clip.positions);
        return wrong(format!(
            "the text encoder has {tokens} tokens and {positions} positions, CLIP's has 49408 and 77"
        ));
    }
    if !clip.width.is_multiple_of(clip.heads()) {
        return wrong(format!(
            "the text encoder's width {} does not divide into {} heads",
            clip.width,
            clip.heads()
        ));
    }
    let grouped = |channels: &usize| channels.is_multiple_of(32);
    let unet_widths = unet.widths();
    let Some(width) = unet_widths.iter().chain(&vae.widths).find(|width| !grouped(width)) else {
        return Ok(());
    };
    wrong(format!("a layer has {width} channels, which do not divide into 32 groups"))
}

//! A whole checkpoint in memory, ready to draw.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::checkpoint::Checkpoint;
use super::component::{Component, ComponentKind, Network, TextEncoder};
use super::estimate::Estimate;
use super::family::Family;
use super::unet_input::UNetInput;
use crate::files::Prediction;
use crate::networks::clip::ClipText;
use crate::networks::unet::{UNet, UNetConfig};
use crate::networks::vae::Vae;
use crate::nn::backend::cpu::cpu;
use crate::nn::{Device, Precision};
use crate::sampling::ModelSigmas;
use crate::{Error, Result};

/// What the pipeline needs to know of a model beside its networks.
#[derive(Clone, Copy, Debug)]
pub struct ModelFacts {
    /// Its family.
    pub family: &'static Family,
    /// What its UNet predicts.
    pub prediction: Prediction,
    /// What its UNet sees beside noisy latents and text.
    pub unet_input: UNetInput,
    /// Whether its file says that it was trained with noise alone at the last timestep.
    pub zero_terminal_snr: bool,
    /// What it computes in.
    pub precision: Precision,
    /// Layers of its text encoder.
    pub text_layers: usize,
}

/// What a model is made of, without its weights.
#[derive(Clone, Debug)]
pub struct ModelShape {
    /// What is known of it.
    pub facts: ModelFacts,
    /// Its UNet.
    pub unet: UNetConfig,
}

impl ModelShape {
    /// Stable Diffusion 1.5, in f32.
    pub fn sd15() -> Self {
        let of = Checkpoint::synthetic_sd15();
        let facts = ModelFacts {
            family: of.family,
            prediction: of.prediction,
            unet_input: UNetInput::Latents,
            zero_terminal_snr: of.zero_terminal_snr,
            precision: Precision::F32,
            text_layers: of.clip().layers,
        };
        Self { facts, unet: of.unet().clone() }
    }
}

/// A checkpoint whose networks are all in memory. All methods take `&self`, and a model can be shared between threads.
pub struct Model {
    facts: ModelFacts,
    text: Arc<TextEncoder>,
    unet: Arc<UNet>,
    vae: Arc<Vae>,
    weight_bytes: u64,
    native_size: (usize, usize),
    dtype: String,
    estimate: Estimate,
}

/// What a caller may want to know of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSummary {
    /// Its family's name.
    pub architecture: &'static str,
    /// Bytes the packed weights take in memory.
    pub weight_bytes: u64,
    /// The type most weights are stored in, as in [`FileInfo::dtype`](crate::files::FileInfo::dtype): "f16", "q8_0".
    pub dtype: String,
}

impl Model {
    /// Reads a checkpoint file into the CPU's memory, to compute in `precision`; another one takes another model.
    pub fn open(path: &Path, precision: Precision) -> Result<Self> {
        Self::load(&Checkpoint::open(path)?, &cpu(), precision)
    }

    /// The same of a checkpoint file's bytes in memory; errors call it `name`.
    pub fn from_bytes(name: impl Into<PathBuf>, bytes: Vec<u8>, precision: Precision) -> Result<Self> {
        Self::load(&Checkpoint::from_bytes(name, bytes)?, &cpu(), precision)
    }

    /// SD 1.5 at its real size with random f16 weights, for measurements.
    pub fn synthetic_sd15(precision: Precision) -> Result<Self> {
        Self::load(&Checkpoint::synthetic_sd15(), &cpu(), precision)
    }

    /// Loads all networks of a checkpoint.
    pub fn load(checkpoint: &Checkpoint, device: &Device, precision: Precision) -> Result<Self> {
        let load = |kind| checkpoint.load(kind, device, precision, &|| false);
        // One after the other: what follows one that failed is not read.
        let [text, unet, vae] = ComponentKind::ALL;
        Self::of(checkpoint, [load(text)?, load(unet)?, load(vae)?], precision)
    }

    /// The model of networks that are in memory: text encoder, UNet, VAE.
    pub fn of(checkpoint: &Checkpoint, components: [Component; 3], precision: Precision) -> Result<Self> {
        let weight_bytes = components.iter().map(Component::bytes).sum();
        let [Network::TextEncoder(text), Network::UNet(unet), Network::Vae(vae)] =
            components.map(|component| component.network)
        else {
            return Err(Error::Compute("networks in another order".to_owned()));
        };
        Ok(Self {
            facts: ModelFacts {
                family: checkpoint.family,
                prediction: checkpoint.prediction,
                unet_input: checkpoint.unet_input(),
                zero_terminal_snr: checkpoint.zero_terminal_snr,
                precision,
                text_layers: checkpoint.clip().layers,
            },
            text,
            unet,
            vae,
            weight_bytes,
            native_size: checkpoint.native_size,
            dtype: checkpoint.dtype.clone(),
            estimate: Estimate::new(checkpoint, precision)?,
        })
    }

    /// What the pipeline needs to know of it.
    pub fn facts(&self) -> ModelFacts {
        self.facts
    }

    /// What this model is.
    pub fn summary(&self) -> ModelSummary {
        ModelSummary {
            architecture: self.facts.family.name,
            weight_bytes: self.weight_bytes,
            dtype: self.dtype.clone(),
        }
    }

    /// Width and height in pixels of the pictures it was made to draw: as its file says in `modelspec.resolution`, else
    /// its family's.
    pub fn native_size(&self) -> (usize, usize) {
        self.native_size
    }

    /// What pictures take, counted.
    pub fn estimate(&self) -> &Estimate {
        &self.estimate
    }

    /// What its UNet predicts.
    pub fn prediction(&self) -> Prediction {
        self.facts.prediction
    }

    /// What it computes in.
    pub fn precision(&self) -> Precision {
        self.facts.precision
    }

    /// The text encoder's network.
    pub fn clip(&self) -> &ClipText {
        &self.text.clip
    }

    /// The text encoder.
    pub fn text_encoder(&self) -> &Arc<TextEncoder> {
        &self.text
    }

    /// The denoiser.
    pub fn unet(&self) -> &Arc<UNet> {
        &self.unet
    }

    /// The autoencoder.
    pub fn vae(&self) -> &Arc<Vae> {
        &self.vae
    }
}

impl ModelFacts {
    /// The model's noise levels; with a last timestep of noise alone if that is wanted, or the file says so.
    pub fn sigmas(&self, zero_terminal_snr: bool) -> ModelSigmas {
        let sigmas = ModelSigmas::default();
        if zero_terminal_snr || self.zero_terminal_snr { sigmas.zero_terminal_snr() } else { sigmas }
    }
}

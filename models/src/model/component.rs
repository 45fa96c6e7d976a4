//! The networks of a checkpoint, each of which is loaded, shared and dropped by itself.

use std::fmt;
use std::sync::Arc;

use crate::networks::clip::ClipText;
use crate::networks::unet::UNet;
use crate::networks::vae::Vae;
use crate::nn::{Device, Parts, Precision};
use crate::prompt::ConditioningCache;

/// Which network of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ComponentKind {
    /// Prompts to conditioning.
    TextEncoder,
    /// Latents to less noisy ones.
    UNet,
    /// Latents to pixels and back.
    Vae,
}

impl ComponentKind {
    /// All of them, in the order in which a picture needs them.
    pub const ALL: [Self; 3] = [Self::TextEncoder, Self::UNet, Self::Vae];

    /// "text encoder", "UNet", "VAE".
    pub fn name(self) -> &'static str {
        match self {
            Self::TextEncoder => "text encoder",
            Self::UNet => "UNet",
            Self::Vae => "VAE",
        }
    }
}

impl fmt::Display for ComponentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What tells one component in memory from another: those with equal keys are the same numbers in the same form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ComponentKey {
    /// Of the tensors it is made of: their digest once it is known, else of the file they are in.
    pub source: [u8; 32],
    /// Which network.
    pub kind: ComponentKind,
    /// What it computes in.
    pub precision: Precision,
    /// The device it is on, by its kind.
    pub device: &'static str,
    /// Of the patches it was loaded with, in order; `None` for the network as the file has it.
    pub patches: Option<[u8; 32]>,
}

/// A text encoder, and what it was asked before.
pub struct TextEncoder {
    /// The network.
    pub clip: ClipText,
    pub(crate) cache: ConditioningCache,
}

/// A network, shared by all that draw with it.
#[derive(Clone)]
pub enum Network {
    /// Prompts to conditioning.
    TextEncoder(Arc<TextEncoder>),
    /// Latents to less noisy ones.
    UNet(Arc<UNet>),
    /// Latents to pixels and back.
    Vae(Arc<Vae>),
}

impl Network {
    /// Where it is.
    pub fn device(&self) -> &Device {
        match self {
            Self::TextEncoder(network) => network.clip.device(),
            Self::UNet(network) => network.device(),
            Self::Vae(network) => network.device(),
        }
    }

    /// Whether anybody beside the holder of this draws with it.
    pub fn is_shared(&self) -> bool {
        match self {
            Self::TextEncoder(network) => Arc::strong_count(network) > 1,
            Self::UNet(network) => Arc::strong_count(network) > 1,
            Self::Vae(network) => Arc::strong_count(network) > 1,
        }
    }
}

/// A network in memory and the tensors that it is made of.
#[derive(Clone)]
pub struct Component {
    /// The network.
    pub network: Network,
    /// Its packed tensors, by name. They are never written: one with patches is built beside it and shares those that no
    /// patch touches.
    pub parts: Arc<Parts>,
}

impl Component {
    /// Which network it is.
    pub fn kind(&self) -> ComponentKind {
        match self.network {
            Network::TextEncoder(_) => ComponentKind::TextEncoder,
            Network::UNet(_) => ComponentKind::UNet,
            Network::Vae(_) => ComponentKind::Vae,
        }
    }

    /// Bytes of its weights.
    pub fn bytes(&self) -> u64 {
        self.parts.bytes()
    }
}

//! What a picture will take, counted by empty networks.

use std::sync::{Arc, Mutex, PoisonError};

use latentd_kernels::{WeightDtype, Weights};

use super::checkpoint::Checkpoint;
use super::component::{ComponentKind, Network, TextEncoder};
use crate::networks::unet::UNet;
use crate::networks::vae::Vae;
use crate::nn::backend::dry_run::{Counter, dry_run};
use crate::nn::{Device, Matrix, Part, Parts, Patch, Precision, Run, working_bytes};
use crate::prompt::CHUNK_TOKENS;
use crate::{Error, Result};

/// A checkpoint's networks without their weights: what they would take is counted by running them.
pub struct Estimate {
    counter: Counter,
    /// Held while something is counted.
    counting: Mutex<()>,
    text: Arc<TextEncoder>,
    unet: Arc<UNet>,
    vae: Arc<Vae>,
    /// Of each component, in the order of [`ComponentKind::ALL`].
    parts: [Arc<Parts>; 3],
    device: Device,
    precision: Precision,
}

/// What decides how many activations there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PictureSize {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Images of a pass.
    pub images: usize,
    /// Predictions that guidance combines, of all images of a pass.
    pub rows: usize,
    /// Latents that go through the UNet at once.
    pub samples: usize,
    /// Tokens of the longest conditionings: of what is wanted, and of what is steered away from.
    pub tokens: [usize; 2],
    /// Conditionings that are kept beside these two as the UNet takes them.
    pub more_contexts: usize,
    /// Tokens of all conditionings that there are at once.
    pub held_tokens: usize,
    /// Threads that compute: each has scratch of its own.
    pub threads: usize,
}

/// Most scratch of a kernel's thread: panels of weights, rows of sums, tiles on their way. Small networks need less.
const THREAD_SCRATCH: u64 = 4 << 20;

impl Estimate {
    /// Builds the empty networks of a checkpoint for a precision.
    pub fn new(checkpoint: &Checkpoint, precision: Precision) -> Result<Self> {
        let (device, counter) = dry_run();
        let mut parts = <[Arc<Parts>; 3]>::default();
        let mut networks = vec![];
        for (kind, parts) in ComponentKind::ALL.into_iter().zip(&mut parts) {
            let empty = checkpoint.empty(kind, &device, precision)?;
            *parts = empty.parts;
            networks.push(empty.network);
        }
        let Ok([Network::TextEncoder(text), Network::UNet(unet), Network::Vae(vae)]) =
            <[Network; 3]>::try_from(networks)
        else {
            return Err(Error::Compute("networks of other kinds than were asked for".to_owned()));
        };
        Ok(Self { counter, counting: Mutex::default(), text, unet, vae, parts, device, precision })
    }

    /// What the networks compute in.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Bytes of a component's packed weights.
    pub fn weight_bytes(&self, kind: ComponentKind) -> u64 {
        self.parts(kind).map_or(0, Parts::bytes)
    }

    /// Bytes that a component with these patches takes beside the one without.
    pub fn patched_bytes(&self, kind: ComponentKind, patches: &[Arc<dyn Patch>]) -> Result<u64> {
        let _alone = self.counting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = 0;
        let parts = self.parts(kind).into_iter().flat_map(Parts::iter);
        for (_, part) in parts.filter(|(name, _)| patches.iter().any(|patch| patch.touches(name))) {
            bytes += match part {
                Part::Matrix(Matrix { layout, precision, .. }) => {
                    let wide = Weights { dtype: WeightDtype::F32, bytes: &[] };
                    let packed = self.device.matrix(*layout, *precision, wide)?;
                    packed.map_or(0, |matrix| matrix.bytes as u64)
                }
                Part::Vector(vector) => vector.bytes() as u64,
                Part::Table(table) => (table.shape.iter().product::<usize>() * size_of::<f32>()) as u64,
            };
        }
        Ok(bytes)
    }

    /// Bytes that are needed while so many threads change a component's tensors by these patches, beside what they become.
    pub fn patching_bytes(&self, kind: ComponentKind, patches: &[Arc<dyn Patch>], threads: usize) -> u64 {
        let parts = self.parts(kind).into_iter().flat_map(Parts::iter);
        let touched = parts.filter(|(name, _)| patches.iter().any(|patch| patch.touches(name)));
        let largest = touched.map(|(name, part)| working_bytes(name, &part.shape(), patches)).max();
        // Each thread may be at one of the largest.
        largest.unwrap_or_default() * threads as u64
    }

    /// Channels of the UNet at the latents' own size.
    pub fn unet_channels(&self) -> usize {
        self.unet.config().channels
    }

    /// The tensors that a component is made of, by LDM's names with their prefixes, and their shapes.
    pub fn tensors(&self, kind: ComponentKind) -> impl Iterator<Item = (&str, Vec<usize>)> {
        let parts = self.parts(kind).into_iter().flat_map(Parts::iter);
        parts.map(|(name, part)| (name, part.shape()))
    }

    fn parts(&self, kind: ComponentKind) -> Option<&Parts> {
        let place = ComponentKind::ALL.iter().position(|each| *each == kind)?;
        self.parts.get(place).map(|parts| &**parts)
    }

    /// Bytes that the work with one component takes beside its weights.
    pub fn activation_bytes(&self, kind: ComponentKind, size: &PictureSize) -> Result<u64> {
        self.count(kind, size).map(|(bytes, _)| bytes)
    }

    /// How many latents may go through the UNet at once, at most `size.samples`, so that its activations and those of
    /// everything else stay within `limit`; an error if one alone does not.
    pub fn samples_within(&self, limit: u64, size: &PictureSize) -> Result<usize> {
        for kind in [ComponentKind::TextEncoder, ComponentKind::Vae] {
            let needed_bytes = self.activation_bytes(kind, size)?;
            if needed_bytes > limit {
                return Err(Error::Memory { needed_bytes, allowed_bytes: limit });
            }
        }
        let needed = |samples| self.activation_bytes(ComponentKind::UNet, &PictureSize { samples, ..*size });
        let needed_bytes = needed(1)?;
        if needed_bytes > limit {
            return Err(Error::Memory { needed_bytes, allowed_bytes: limit });
        }
        // More take more: the last that fits lies between one that does and one that does not.
        let (mut fits, mut too_many) = (1, size.samples.max(1) + 1);
        while too_many - fits > 1 {
            let middle = fits.midpoint(too_many);
            if needed(middle)? <= limit { fits = middle } else { too_many = middle }
        }
        Ok(fits)
    }

    fn count(&self, kind: ComponentKind, size: &PictureSize) -> Result<(u64, u64)> {
        let _alone = self.counting.lock().unwrap_or_else(PoisonError::into_inner);
        let latents = (size.height.div_ceil(8), size.width.div_ceil(8));
        let width = self.text.clip.config().width;
        let tokens = size.tokens.map(|tokens| tokens.max(CHUNK_TOKENS));
        let conditioning = |tokens: usize| (tokens * width * 4) as u64;
        let [cond, uncond] = tokens.map(conditioning);
        let held = conditioning(size.held_tokens).max(cond + uncond);
        let longest = tokens.into_iter().max().unwrap_or_default();
        let tokens: Vec<usize> =
            tokens.into_iter().chain(std::iter::repeat_n(longest, size.more_contexts)).collect();
        self.counter.restart();
        // The keys and values that the UNet makes of the conditioning are kept for the next pass, so they are there while
        // the other networks work too.
        let contexts = if kind == ComponentKind::UNet { vec![] } else { self.unet.contexts(&tokens)? };
        let host = match kind {
            ComponentKind::TextEncoder => {
                // Chunks of what a prompt says at different steps are encoded together.
                let chunks =
                    longest.max(size.held_tokens - size.held_tokens.min(longest)).div_ceil(CHUNK_TOKENS);
                let ids = vec![vec![0; CHUNK_TOKENS]; chunks.clamp(1, 8)];
                self.text.clip.encode(&ids, &[], 1, &Run::WHOLE)?;
                // That of the pass before, what is encoded, and one of them once more while its chunks are joined.
                2 * held + if held == cond + uncond { cond.max(uncond) } else { held }
            }
            ComponentKind::UNet => {
                self.unet.try_out(latents, size.samples, &tokens)?;
                // The sampler's state, noise and their like of each image, and the time embeddings that are kept; what goes
                // in and comes out for each row, and copies of that.
                let channels = self.unet.config().in_channels;
                let each = (channels * latents.0 * latents.1 * 4) as u64;
                let state = (16 * size.images as u64 + 5 * size.rows as u64) * each;
                state + held
            }
            ComponentKind::Vae => {
                self.vae.try_out(latents)?;
                self.vae.host_bytes(latents) + held
            }
        };
        drop(contexts);
        let counts = self.counter.counts();
        let scratch = size.threads as u64 * THREAD_SCRATCH.min(counts.most / 8);
        Ok((counts.most + host + scratch, counts.multiply_adds))
    }

    /// Multiply-adds of one UNet call.
    pub fn unet_multiply_adds(&self, size: &PictureSize) -> Result<u64> {
        self.count(ComponentKind::UNet, size).map(|(_, multiply_adds)| multiply_adds)
    }
}

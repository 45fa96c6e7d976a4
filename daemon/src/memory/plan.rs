//! How a picture is drawn with the memory that there is.

use latentd_models::model::{ComponentKind, PictureSize};

use super::known::Known;
use super::taesd::TaesdNeeds;
use crate::error::{Class, Error, Result};

/// Bytes that could be had for a checkpoint's networks and what they compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// For each network by itself, in the order of [`ComponentKind::ALL`].
    pub each: [u64; 3],
    /// For all of them together.
    pub all: u64,
    /// Whether a network that is in memory stays there while another is at work.
    pub stays: bool,
}

impl Room {
    /// With nothing else in memory.
    pub(super) fn empty(bytes: u64) -> Self {
        Self { each: [bytes; 3], all: bytes, stays: false }
    }

    /// Bytes for one network's phase, and how many of them weights take.
    fn of(&self, known: &Known, beside: &Beside, kind: ComponentKind) -> (u64, u64) {
        let place = ComponentKind::ALL.iter().position(|each| *each == kind);
        let of_kind = |all: &[u64; 3]| place.and_then(|place| all.get(place)).copied().unwrap_or_default();
        let patched = of_kind(&beside.patched);
        if self.stays {
            return (self.all.saturating_sub(beside.plugins), known.weight_bytes() + patched);
        }
        (of_kind(&self.each).saturating_sub(beside.plugins), known.estimate.weight_bytes(kind) + patched)
    }
}

/// Bytes that a job needs beside its checkpoint's own networks and what those compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Beside {
    pub taesd: TaesdNeeds,
    /// What patched networks do not share, and hypernetworks with the UNet, in the order of [`ComponentKind::ALL`].
    pub patched: [u64; 3],
    /// What it takes to make those, before anything is computed, in the same order.
    pub patching: [u64; 3],
    /// What the networks of plugins take, whichever of the checkpoint's is at work.
    pub plugins: u64,
}

impl Beside {
    /// What it takes to make a patched network.
    fn patching(&self, kind: ComponentKind) -> u64 {
        let place = ComponentKind::ALL.iter().position(|each| *each == kind);
        place.and_then(|place| self.patching.get(place)).copied().unwrap_or_default()
    }
}

/// An error if a picture can never be drawn with so much room.
pub(super) fn check(known: &Known, size: &PictureSize, beside: &Beside, room: &Room) -> Result<()> {
    plan(known, &PictureSize { samples: 1, ..*size }, beside, room).map(drop)
}

/// How many latents may go through the UNet at once with so much room, and whether all networks fit beside them.
pub(super) fn plan(known: &Known, size: &PictureSize, beside: &Beside, room: &Room) -> Result<(usize, bool)> {
    let (estimate, taesd) = (&known.estimate, beside.taesd);
    let activations = |kind, size: &PictureSize| estimate.activation_bytes(kind, size);
    for kind in [ComponentKind::TextEncoder, ComponentKind::Vae] {
        let (available, weights) = room.of(known, beside, kind);
        match taesd.decoding {
            // In its place.
            Some(bytes) if kind == ComponentKind::Vae => fits(bytes, available)?,
            _ => fits(weights + activations(kind, size)?.max(beside.patching(kind)), available)?,
        }
    }
    let (available, unet) = room.of(known, beside, ComponentKind::UNet);
    let of_unet = |samples| {
        let own = activations(ComponentKind::UNet, &PictureSize { samples, ..*size });
        own.map(|own| own + taesd.beside_unet)
    };
    fits(unet + of_unet(1)?.max(beside.patching(ComponentKind::UNet)), available)?;
    // With all networks in memory if that leaves room for everything at once; else with the UNet alone.
    let patching = beside.patching.iter().copied().max().unwrap_or_default();
    let all = of_unet(size.samples)?.max(activations(ComponentKind::Vae, size)?).max(patching);
    let together = known.weight_bytes() + beside.patched.iter().sum::<u64>() + all;
    if together.saturating_add(beside.plugins) <= room.all {
        return Ok((size.samples, true));
    }
    // More take more: the last that fits lies between one that does and one that does not.
    let (mut samples, mut too_many) = (1, size.samples.max(1) + 1);
    while too_many - samples > 1 {
        let middle = samples.midpoint(too_many);
        if of_unet(middle)? <= available - unet { samples = middle } else { too_many = middle }
    }
    Ok((samples, false))
}

fn fits(needed: u64, available: u64) -> Result<()> {
    if needed <= available {
        return Ok(());
    }
    let text = format!(
        "needs about {needed} bytes of memory, {available} can be had; draw smaller or fewer pictures at once, shorten the \
         prompts, raise memory_bytes, or unpin a model"
    );
    Err(Error::new(Class::Memory, text))
}

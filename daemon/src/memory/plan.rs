//! How a picture is drawn with the memory that there is.

use latentd_models::model::{ComponentKind, PictureSize};

use super::known::Known;
use crate::error::{Class, Error, Result};

/// An error if a picture can never be drawn with so many bytes.
pub(super) fn check(known: &Known, size: &PictureSize, available: u64) -> Result<()> {
    plan(known, &PictureSize { samples: 1, ..*size }, available).map(drop)
}

/// How many latents may go through the UNet at once with so many bytes, and whether all networks fit beside them.
pub(super) fn plan(known: &Known, size: &PictureSize, available: u64) -> Result<(usize, bool)> {
    let estimate = &known.estimate;
    let activations = |kind, size: &PictureSize| estimate.activation_bytes(kind, size);
    for kind in [ComponentKind::TextEncoder, ComponentKind::Vae] {
        fits(estimate.weight_bytes(kind) + activations(kind, size)?, available)?;
    }
    let unet = estimate.weight_bytes(ComponentKind::UNet);
    let of_unet = |samples| activations(ComponentKind::UNet, &PictureSize { samples, ..*size });
    fits(unet + of_unet(1)?, available)?;
    // With all networks in memory if that leaves room for everything at once; else with the UNet alone.
    let all = of_unet(size.samples)?.max(activations(ComponentKind::Vae, size)?);
    if known.weight_bytes() + all <= available {
        return Ok((size.samples, true));
    }
    // More take more; a batch has few.
    let mut samples = 1;
    while samples < size.samples && of_unet(samples + 1)? <= available - unet {
        samples += 1;
    }
    Ok((samples, false))
}

fn fits(needed: u64, available: u64) -> Result<()> {
    if needed <= available {
        return Ok(());
    }
    let text = format!(
        "needs about {needed} bytes of memory, {available} can be had; draw smaller or fewer pictures at once, raise \
         memory_bytes, or unpin a model"
    );
    Err(Error::new(Class::Memory, text))
}

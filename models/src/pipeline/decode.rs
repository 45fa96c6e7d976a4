//! Latents to pictures.

use super::components::Components;
use super::freed::FreedAtTheEnd;
use super::watch::Watch;
use crate::image::{RgbImage, tensor_to_image};
use crate::networks::taesd::Taesd;
use crate::networks::vae::Vae;
use crate::nn::{Run, Wrap};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// What makes pictures of latents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LatentDecoder {
    /// The model's VAE.
    #[default]
    Vae,
    /// TAESD, quicker and less exact.
    Taesd,
}

/// How latents become pictures.
pub(super) struct DecodePlan {
    /// The family's scale of latents.
    pub scale: f64,
    pub decoder: LatentDecoder,
    /// Where pictures go on with their other end; TAESD's never do, as in A1111.
    pub wrap: Wrap,
}

/// Decodes latents `(batch, channels, height, width)` one after the other; `done` is told of each. One
/// that comes out as NaN is decoded again in f32, whatever the others do, and the watch is told.
pub(super) fn decode(
    components: &mut dyn Components,
    latents: &Tensor,
    plan: &DecodePlan,
    watch: &mut dyn Watch,
    mut done: impl FnMut(&mut dyn Watch, RgbImage),
) -> Result<()> {
    if plan.decoder == LatentDecoder::Taesd {
        return decode_cheaply(components, latents, watch, done);
    }
    let mut lent = None;
    for index in 0..latents.dim(0) {
        if watch.cancelled() {
            return Err(Error::Cancelled);
        }
        let latent = latents.narrow(0, index, 1)?.scaled(1.0 / plan.scale);
        // No VAE makes numbers of these.
        if latent.values().iter().any(|value| !value.is_finite()) {
            return Err(Error::NotFinite("the latents came out as NaN".to_owned()));
        }
        let vae = match lent.take() {
            Some(vae) => vae,
            None => components.vae()?,
        };
        let image = match decode_one(&vae, &latent, plan.wrap, watch) {
            Err(Error::NotFinite(reason)) => {
                drop(vae);
                let wide = components.vae_in_f32()?.ok_or(Error::NotFinite(reason))?;
                let image = decode_one(&wide, &latent, plan.wrap, watch)?;
                watch.notice("the VAE's picture came out as NaN and was decoded again in f32");
                image
            }
            decoded => {
                lent = Some(vae);
                decoded?
            }
        };
        done(watch, image);
    }
    Ok(())
}

/// The same by TAESD, which takes latents as they are.
fn decode_cheaply(
    components: &mut dyn Components,
    latents: &Tensor,
    watch: &mut dyn Watch,
    mut done: impl FnMut(&mut dyn Watch, RgbImage),
) -> Result<()> {
    let missing = || Error::Request("there is no TAESD to decode with".to_owned());
    let taesd = components.taesd()?.ok_or_else(missing)?;
    for index in 0..latents.dim(0) {
        let image = {
            let cancelled = || watch.cancelled();
            by_taesd(&taesd, &latents.narrow(0, index, 1)?, &Run::until(&cancelled))?
        };
        done(watch, image);
    }
    Ok(())
}

/// One latent's picture by TAESD.
pub(super) fn by_taesd(taesd: &Taesd, latent: &Tensor, run: &Run) -> Result<RgbImage> {
    let _memory = FreedAtTheEnd(taesd.device().clone());
    tensor_to_image(&taesd.decode(latent, run)?)
}

/// Latents `(1, channels, rows, columns)` in the model's scale to pixels `(1, 3, height, width)`, about [−1, 1], which no 8 bits
/// have rounded. What comes out as NaN is decoded again in f32, and the watch is told.
pub(super) fn decode_tensor(
    components: &mut dyn Components,
    latents: &Tensor,
    scale: f64,
    wrap: Wrap,
    watch: &mut dyn Watch,
) -> Result<Tensor> {
    if watch.cancelled() {
        return Err(Error::Cancelled);
    }
    let latents = latents.scaled(1.0 / scale);
    let is_finite = |pixels: &Tensor| pixels.values().iter().all(|value| value.is_finite());
    let vae = components.vae()?;
    let pixels = pixels_of(&vae, &latents, wrap, watch)?;
    drop(vae);
    if is_finite(&pixels) {
        return Ok(pixels);
    }
    let text = "the latents' picture came out as NaN";
    let not_finite = || Error::NotFinite(text.to_owned());
    let wide = components.vae_in_f32()?.ok_or_else(not_finite)?;
    let pixels = pixels_of(&wide, &latents, wrap, watch)?;
    if !is_finite(&pixels) {
        return Err(not_finite());
    }
    watch.notice(&format!("{text} and was decoded again in f32"));
    Ok(pixels)
}

fn decode_one(vae: &Vae, latent: &Tensor, wrap: Wrap, watch: &dyn Watch) -> Result<RgbImage> {
    tensor_to_image(&pixels_of(vae, latent, wrap, watch)?)
}

fn pixels_of(vae: &Vae, latent: &Tensor, wrap: Wrap, watch: &dyn Watch) -> Result<Tensor> {
    let _memory = FreedAtTheEnd(vae.device().clone());
    let cancelled = || watch.cancelled();
    let run = Run::until(&cancelled);
    match wrap {
        Wrap { x: false, y: false } => vae.decode(latent, &run),
        wrap => vae.wrapping(wrap).decode(latent, &run),
    }
}

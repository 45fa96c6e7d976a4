//! Pictures to latents.

use super::components::Components;
use super::freed::FreedAtTheEnd;
use super::watch::Watch;
use crate::networks::vae::{Posterior, Vae};
use crate::nn::{Run, Wrap};
use crate::sampling::NoiseGenerator;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Encodes a picture `(1, 3, height, width)` in [−1, 1]. One that comes out as NaN is encoded again in f32, and the watch is
/// told.
pub(super) fn encode(
    components: &mut dyn Components,
    picture: &Tensor,
    wrap: Wrap,
    watch: &mut dyn Watch,
) -> Result<Posterior> {
    if watch.cancelled() {
        return Err(Error::Cancelled);
    }
    let vae = components.vae()?;
    let posterior = encode_one(&vae, picture, wrap, watch)?;
    drop(vae);
    if is_finite(&posterior) {
        return Ok(posterior);
    }
    let text = "the picture's latents came out as NaN";
    let not_finite = || Error::NotFinite(text.to_owned());
    let wide = components.vae_in_f32()?.ok_or_else(not_finite)?;
    let posterior = encode_one(&wide, picture, wrap, watch)?;
    if !is_finite(&posterior) {
        return Err(not_finite());
    }
    watch.notice(&format!("{text} and were encoded again in f32"));
    Ok(posterior)
}

/// What noise of a picture's own encoding is drawn from beside the seed: the first draw of a seed itself is the initial noise. A1111
/// draws it from a generator without a seed.
pub(super) const ENCODING: u64 = 0x706f_7374_6572_696f;

/// One of the latents that a picture may be, in the model's scale.
pub(super) fn sampled(posterior: &Posterior, mut generator: NoiseGenerator, scale: f64) -> Result<Tensor> {
    let Posterior { mean, logvar } = posterior;
    let noise = Tensor::new(generator.normal(mean.values().len()), mean.dims())?;
    let spread = noise.zip(logvar, |noise, logvar| noise * (0.5 * logvar).exp())?;
    Ok(mean.plus(&spread)?.scaled(scale))
}

fn is_finite(posterior: &Posterior) -> bool {
    let Posterior { mean, logvar } = posterior;
    [mean, logvar].iter().all(|tensor| tensor.values().iter().all(|value| value.is_finite()))
}

fn encode_one(vae: &Vae, picture: &Tensor, wrap: Wrap, watch: &dyn Watch) -> Result<Posterior> {
    let _memory = FreedAtTheEnd(vae.device().clone());
    let cancelled = || watch.cancelled();
    let run = Run::until(&cancelled);
    match wrap {
        Wrap { x: false, y: false } => vae.encode(picture, &run),
        wrap => vae.wrapping(wrap).encode(picture, &run),
    }
}

//! Pictures to latents.

use super::components::Components;
use super::freed::FreedAtTheEnd;
use super::watch::Watch;
use crate::networks::vae::{Posterior, Vae};
use crate::nn::{Run, Wrap};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Encodes pictures `(1, 3, height, width)` in [−1, 1] one after the other. One that comes out as NaN is encoded again in f32,
/// and the watch is told.
pub(super) fn encode(
    components: &mut dyn Components,
    pictures: &[Tensor],
    wrap: Wrap,
    watch: &mut dyn Watch,
) -> Result<Vec<Posterior>> {
    let mut all = vec![];
    for picture in pictures {
        if watch.cancelled() {
            return Err(Error::Cancelled);
        }
        let vae = components.vae()?;
        let mut posterior = encode_one(&vae, picture, wrap, watch)?;
        drop(vae);
        if !is_finite(&posterior) {
            let text = "the picture's latents came out as NaN".to_owned();
            let wide = components.vae_in_f32()?.ok_or_else(|| Error::NotFinite(text.clone()))?;
            posterior = encode_one(&wide, picture, wrap, watch)?;
            if !is_finite(&posterior) {
                return Err(Error::NotFinite(text));
            }
            watch.notice("the picture's latents came out as NaN and were encoded again in f32");
        }
        all.push(posterior);
    }
    Ok(all)
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

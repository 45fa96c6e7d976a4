//! The refiner of a request: another checkpoint that goes on where the own one ends.

use latentd_client::protocol::Txt2ImgParams;
use latentd_models::nn::Precision;
use latentd_models::prompt::Wording;

use super::hooks::Hashing;
use super::loras::Loras;
use super::notices::Notices;
use super::studio::Studio;
use super::tags::Tags;
use crate::error::{Class, Error, Result};
use crate::library::ModelFiles;
use crate::memory::{Known, RefinerWish};

/// A1111's own (`modules/processing_scripts/refiner.py`).
const SWITCH_AT: f64 = 0.8;

/// Finds the file and matches LoRAs to it; `None` if there is none, or it is the checkpoint itself. With it the share of the
/// way after which it goes on.
pub(super) fn resolve(
    params: &Txt2ImgParams,
    own: (&ModelFiles, &Known),
    precision: Precision,
    prompt: &Wording,
    (studio, hashing, tags): (&Studio, &Hashing, &Tags),
    notices: &mut Notices,
) -> Result<Option<(RefinerWish, f64)>> {
    let (own_files, own_known) = own;
    let Some(name) = &params.refiner_checkpoint else {
        if params.refiner_switch_at.is_some() {
            let text = "refiner_switch_at without refiner_checkpoint: nothing goes on there";
            notices.not_applied(Class::InvalidParams, text.to_owned())?;
        }
        return Ok(None);
    };
    let in_field = |error: Error| Error::new(error.class, format!("refiner_{}", error.text));
    let files = studio.files(Some(name), params.vae.as_deref(), hashing).map_err(in_field)?;
    if files.checkpoint.identity() == own_files.checkpoint.identity() {
        return Ok(None);
    }
    let known = studio.device.memory.known(&files, precision)?;
    let latents = |known: &Known| (known.facts.family.latent_channels, known.facts.family.latent_scale);
    if latents(&known) != latents(own_known) {
        let (refiner, own) = (known.facts.family.name, own_known.facts.family.name);
        let text = format!(
            "refiner_checkpoint: '{name}' is {refiner}, whose latents are not those of {own}; give one of {own}"
        );
        return Err(Error::new(Class::Model, text));
    }
    let changes = Loras::resolve(prompt, &params.loras, &known, (&studio.library, tags), notices)?.changes;
    Ok(Some((RefinerWish { files, known, changes }, params.refiner_switch_at.unwrap_or(SWITCH_AT))))
}

//! The text of a picture that was drawn: what of the request is known only now, and the hashes of the files that drew it.

use latentd_client::protocol::{Emphasis, Txt2ImgParams};
use latentd_models::image::Infotext;
use latentd_models::pipeline::{self, PassKind};

use super::draw::{Draw, SecondPass};
use super::drawn::Course;
use super::infotext::{self, Named, Told};
use super::names;
use super::sampling;
use super::task::Run;
use super::told_prompt::with_prompts;
use crate::error::{Error, Result};
use crate::library::{ModelFiles, Pinned};
use crate::memory::Known;
use crate::plugins::Pair;

impl Draw {
    /// The refiner as A1111 writes it, if it drew.
    fn told_refiner(&self, drawn: &pipeline::Output, cancelled: &dyn Fn() -> bool) -> Result<Option<String>> {
        let Some(refiner) = self.wishes.refiner.as_ref().filter(|_| drawn.refined) else { return Ok(None) };
        told_file(&refiner.files.checkpoint, cancelled).map(Some)
    }

    /// The checkpoint of the second pass as A1111 writes it, if that has one of its own.
    fn told_hires(&self, is_first: bool, cancelled: &dyn Fn() -> bool) -> Result<Option<String>> {
        let hires = self.wishes.hires.as_ref().filter(|hires| hires.is_other && !is_first);
        hires.map(|hires| told_file(&hires.files.checkpoint, cancelled)).transpose()
    }

    /// What a picture's text tells of the embeddings in its prompts.
    fn embedding_hashes(
        &self,
        drawing: &pipeline::Txt2Img,
        index: usize,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<String> {
        if self.embeddings.names().next().is_none() {
            return Ok(String::new());
        }
        self.embeddings.hashes(&drawing.texts_of(index)?, &drawing.reading, cancelled)
    }

    /// The picture's text with the pairs that plugins add, in front of A1111's version as its extensions have theirs. Waits for the
    /// hashes of the files that drew it. Pairs for which the picture's format has no room are left out, and that is told.
    pub(super) fn infotext(
        &self,
        (drawn, pairs): (&pipeline::Output, &[Pair]),
        told: &Told,
        course: &mut Course,
        run: &Run<'_>,
    ) -> Result<String> {
        let mut text = self.own_infotext(drawn, told, &course.known, run)?;
        let own = text.to_string();
        if pairs.is_empty() {
            return Ok(own);
        }
        let end = text.fields.iter().rposition(|(key, _)| key == "Version").unwrap_or(text.fields.len());
        text.fields.splice(end..end, pairs.iter().cloned());
        let whole = text.to_string();
        if self.output.check_infotext(&whole).is_ok() {
            return Ok(whole);
        }
        let keys: Vec<&str> = pairs.iter().map(|(key, _)| key.as_str()).collect();
        course.tell(vec![format!(
            "jpeg: no room for {} in the picture's text; use png or webp",
            keys.join(", ")
        )]);
        Ok(own)
    }

    /// The picture's text without what plugins add.
    fn own_infotext(
        &self,
        drawn: &pipeline::Output,
        told: &Told,
        known: &Known,
        run: &Run<'_>,
    ) -> Result<Infotext> {
        let cancelled = || run.watch.is_cancelled();
        let named = |file: &Pinned, name: String| {
            let sha256 = file.sha256(&cancelled)?;
            let hash = sha256.get(..10).unwrap_or(&sha256).to_owned();
            Ok::<_, Error>(Named { hash: Some(hash), name: Some(name) })
        };
        let ModelFiles { checkpoint, vae } = &self.files;
        // One of the first of two passes tells nothing of the second.
        let first = self.hires.as_ref().filter(|_| drawn.pass == PassKind::Base);
        let alone = first.map(|_| pipeline::Txt2Img { hires: None, ..self.drawing.clone() });
        let drawing = alone.as_ref().unwrap_or(&self.drawing);
        let told = first.map_or(told, |pass| &pass.first);
        let in_prompt = self.prompts.told(drawn.index, &self.loras, &self.hypernetworks)?;
        let facts = drawing.text_facts(drawn.index)?;
        let told = with_prompts(told, &in_prompt, drawing.negative_prompt.of(drawn.index));
        let mut told = self.templates.tell(told, drawn.index, &self.plugins);
        let mut lora_hashes = self.loras.hashes(&cancelled)?;
        if let Some(SecondPass { fields, networks, .. }) = self.hires.as_ref().filter(|_| first.is_none()) {
            told = fields.with_prompts(told, drawn.index, networks, in_prompt.loras.is_empty())?;
            lora_hashes = networks.lora_hashes(&lora_hashes, &cancelled)?;
        }
        let request = told.request.clone();
        let request = Txt2ImgParams {
            // What makes no difference is not told.
            emphasis: if facts.is_emphasised { request.emphasis } else { Emphasis::Original },
            use_old_scheduling: request.use_old_scheduling && facts.is_scheduled_otherwise,
            pad_cond_uncond: facts.pads,
            pad_cond_uncond_v0: facts.pads_v0,
            seed: i64::try_from(drawn.seed).unwrap_or(i64::MAX),
            subseed: drawn.subseed.map_or(-1, |seed| i64::try_from(seed).unwrap_or(i64::MAX)),
            precision: names::wire_precision(known.precision),
            refiner_checkpoint: self.told_refiner(drawn, &cancelled)?,
            refiner_switch_at: self.drawing.refiner_switch_at.filter(|_| drawn.refined),
            hr_checkpoint_name: self.told_hires(first.is_some(), &cancelled)?,
            ..sampling::drawn(request, drawn.skipped)
        };
        let told = Told {
            request,
            checkpoint: named(checkpoint, checkpoint.item().name.clone())?,
            vae: vae.as_ref().map_or(Ok(Named::default()), |vae| named(vae, vae.item().file_name()))?,
            lora_hashes,
            embedding_hashes: self.embedding_hashes(drawing, drawn.index, &cancelled)?,
            ..told
        };
        Ok(infotext::write(&told))
    }
}

/// A checkpoint as A1111 writes it, with the first digits of its hash.
fn told_file(file: &Pinned, cancelled: &dyn Fn() -> bool) -> Result<String> {
    let sha256 = file.sha256(cancelled)?;
    Ok(format!("{} [{}]", file.item().name, sha256.get(..10).unwrap_or(&sha256)))
}

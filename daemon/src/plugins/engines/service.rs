//! The engines of a job for whoever asks for one by its name: what was planned.

use latentd_plugin_api::abi::latentd_engine_run;

use super::engine::{Engine, asked as described};
use super::results::{coloured, image_of, with_alpha_of};
use super::running::Engines;
use super::upscale::upscale_image;
use crate::error::{Error, Result};
use crate::plugins::engine_calls::{Answered, Asked, RunsEngines};
use crate::plugins::engine_kinds::Kind;
use crate::plugins::host::bytes;
use crate::plugins::objects::Content;

impl RunsEngines for Engines<'_> {
    fn run_telling(&self, asked: &Asked, told: &dyn Fn(f64)) -> Result<Answered> {
        let is_it = |engine: &&Engine| engine.kind == asked.kind && engine.entry == asked.entry;
        let engine = self.of.engines.iter().find(is_it).ok_or_else(|| {
            let (kind, entry) = (asked.kind.name(), &asked.entry);
            let text = format!(
                "the {kind} '{entry}' was not planned: name it by `engine` in job.plan, or by `x-engine` in the schema"
            );
            Error::not_found(text)
        })?;
        if engine.kind == Kind::Upscaler {
            let wish = asked.upscaler_wish()?;
            let given = |side: Option<u32>| side.map(|side| side as usize);
            let tiling = engine.tiling(given(wish.tile), given(wish.overlap))?;
            let wanted = match (asked.width as usize, asked.height as usize) {
                (0, 0) => None,
                (width, height) if width > 0 && height > 0 => Some((width, height)),
                (width, height) => {
                    let text =
                        format!("{}: wanted are {width}x{height}; give both sides, or none", engine.at());
                    return Err(Error::invalid(text));
                }
            };
            let mut tell = |done: usize, all: usize| told(done as f64 / all.max(1) as f64);
            let image = upscale_image(self, (engine, tiling), &asked.image, wanted, &mut tell)?;
            return Ok(Answered { image: Some(image), ..Answered::default() });
        }
        let bytes_of = asked.image.pixels.len() * if engine.as_float { 8 } else { 2 };
        let _room = self.job.reserve(bytes_of as u64, engine.plugin())?;
        let image = coloured(&asked.image, engine.as_float)?;
        let mask = asked.mask.clone().map(Content::Image);
        let told = latentd_engine_run {
            width: asked.width,
            height: asked.height,
            strength: asked.strength,
            threshold: asked.threshold,
            params: bytes(&asked.params),
            ..described(engine.kind, &engine.entry)
        };
        let left = self.call(engine, &image, mask.as_ref(), &told)?;
        let image = left.image.map(image_of).transpose()?;
        let image = match (engine.kind, image) {
            (Kind::Restorer, Some(image)) => Some(with_alpha_of(&asked.image, image)),
            (_, image) => image,
        };
        let mut detections = left.detections;
        detections.retain(|found| f64::from(found.score) >= asked.threshold);
        Ok(Answered { image, detections, data: left.data })
    }
}

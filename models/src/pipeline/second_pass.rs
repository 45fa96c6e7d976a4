//! The second pass of a hires fix: what is drawn in it, and what it begins with.

use std::cell::RefCell;
use std::sync::Arc;

use super::components::Components;
use super::encode::{ENCODING, encode, sampled};
use super::hires::{Hires, HiresLevels, HiresUpscaler};
use super::image_texts::ImageTexts;
use super::regions::RegionPrompt;
use super::request::Txt2Img;
use super::stages::Stages;
use super::watch::Watch;
use crate::image::{LatentFilter, Picture, RgbImage, Upscaler, picture_to_tensor, resize_latents};
use crate::model::ModelFacts;
use crate::prompt::Timeline;
use crate::sampling::{ImageNoise, NoiseGenerator};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// A request's second pass.
pub(super) struct SecondPass<'a> {
    hires: &'a Hires,
    first: &'a Txt2Img,
    /// What is drawn in it, as if it were a request of its own.
    pub drawing: Txt2Img,
}

/// What the first pass drew.
pub(super) struct FirstPass<'a> {
    /// One per image.
    pub latents: &'a Tensor,
    /// What they show, if that is needed.
    pub pictures: Vec<RgbImage>,
    /// What each image began with.
    pub noises: Vec<ImageNoise>,
}

impl Txt2Img {
    /// The second pass that it wants.
    pub(super) fn second_pass(&self) -> Result<Option<SecondPass<'_>>> {
        let Some(hires) = &self.hires else { return Ok(None) };
        hires.check()?;
        let (width, height) = hires.size.target();
        let drawing = Self {
            prompt: hires.prompt.as_ref().unwrap_or(&self.prompt).clone(),
            negative_prompt: hires.negative_prompt.as_ref().unwrap_or(&self.negative_prompt).clone(),
            regions: regions(&self.regions, hires)?,
            steps: if hires.steps == 0 { self.steps } else { hires.steps },
            cfg_scale: hires.cfg_scale.unwrap_or(self.cfg_scale),
            width,
            height,
            sampler: hires.sampler.unwrap_or(self.sampler),
            schedule: hires.schedule.unwrap_or(self.schedule),
            hires: None,
            ..self.clone()
        };
        Ok(Some(SecondPass { hires, first: self, drawing }))
    }

    /// Refuses a second pass that cannot be drawn.
    pub(super) fn check_hires(&self, facts: &ModelFacts) -> Result<()> {
        let Some(second) = self.second_pass()? else { return Ok(()) };
        let checked = second.drawing.check(facts).and_then(|()| second.levels(facts));
        match checked {
            Err(Error::Request(text)) => Err(Error::Request(format!("the second pass of hires fix: {text}"))),
            checked => checked.map(drop),
        }
    }
}

impl SecondPass<'_> {
    /// Its prompts, read as A1111 reads them behind a first pass.
    pub(super) fn texts(&self) -> ImageTexts<'_> {
        let (first, second) = (self.first, &self.drawing);
        let calls = |of: &Txt2Img| of.sampler.foreseen_calls(of.steps);
        let is_old = second.reading.use_old_scheduling;
        let timeline = |is_old| Timeline::of_hires_pass(calls(first), calls(second), is_old);
        ImageTexts { timeline: timeline(is_old), other_timeline: timeline(!is_old), ..second.texts() }
    }

    /// Its levels, by a checkpoint.
    pub(super) fn levels(&self, facts: &ModelFacts) -> Result<HiresLevels> {
        let Txt2Img { sampler, schedule, steps, ref sampling, .. } = self.drawing;
        let model = facts.sigmas(sampling.zero_terminal_snr);
        self.hires.levels(sampler, &model, schedule, steps, &sampling.sampler)
    }

    /// Refuses a checkpoint that what the first one drew means nothing to.
    pub(super) fn check_other(&self, first: &ModelFacts, other: &ModelFacts) -> Result<()> {
        let kind = |facts: &ModelFacts| (facts.family.latent_channels, facts.family.latent_scale);
        if self.is_of_latents() && kind(first) != kind(other) {
            return Err(Error::Request(format!(
                "the second pass of hires fix has a checkpoint whose latents are others than those of the first; take an \
                 upscaler of pictures instead of {:?}, or another checkpoint",
                self.hires.upscaler.name()
            )));
        }
        Ok(())
    }

    /// How far it goes from what the first pass drew.
    pub(super) fn strength(&self) -> f64 {
        self.hires.denoising_strength
    }

    /// Whether pictures of the first pass come out too.
    pub(super) fn keeps_first(&self) -> bool {
        self.hires.keeps_first
    }

    /// Whether it begins with pictures of what the first pass drew, or they come out.
    pub(super) fn needs_pictures(&self) -> bool {
        self.keeps_first() || !self.is_of_latents()
    }

    fn is_of_latents(&self) -> bool {
        matches!(self.hires.upscaler, HiresUpscaler::Latent(_))
    }

    /// What it begins with: latents of its size, one per image.
    pub(super) fn latents(
        &self,
        first: &FirstPass,
        scale: f64,
        components: &mut dyn Components,
        watch: &mut dyn Watch,
        stages: &mut dyn Stages,
    ) -> Result<Tensor> {
        let (width, height) = self.hires.size.upscale_to;
        let upscaler = match &self.hires.upscaler {
            HiresUpscaler::Latent(filter) => {
                return cropped(&resize_latents(first.latents, height / 8, width / 8, *filter)?, self.hires);
            }
            HiresUpscaler::Picture(upscaler) => Ok(upscaler.as_deref()),
            HiresUpscaler::Named(name) => Err(name),
        };
        let mut all = vec![];
        for (picture, noise) in first.pictures.iter().zip(&first.noises) {
            let picture = Picture::from(picture.clone());
            let larger = match upscaler {
                Ok(upscaler) => {
                    let upscaler = upscaler.map(|upscaler| -> &dyn Upscaler { upscaler });
                    picture.upscaled(upscaler, width, height, &|| watch.cancelled())?
                }
                Err(name) => {
                    let asked = Asked { name, of: RefCell::new((&mut *stages, &mut *watch)) };
                    let is_cancelled = || asked.of.try_borrow().is_ok_and(|of| of.1.cancelled());
                    picture.upscaled(Some(&asked), width, height, &is_cancelled)?
                }
            };
            let picture = picture_to_tensor(&larger.into_rgb().into())?;
            let posterior = encode(components, &picture, self.drawing.tiling, watch)?;
            let generator = NoiseGenerator::new(noise.source, noise.seed ^ ENCODING);
            all.push(cropped(&sampled(&posterior, generator, scale)?, self.hires)?);
        }
        Tensor::cat(&all.iter().collect::<Vec<_>>(), 0)
    }
}

/// An upscaler that those who take part in drawing have.
struct Asked<'a> {
    name: &'a str,
    of: RefCell<(&'a mut dyn Stages, &'a mut dyn Watch)>,
}

impl Upscaler for Asked<'_> {
    fn name(&self) -> &str {
        self.name
    }

    fn upscale(&self, picture: &Picture, _scale: f64, _cancelled: &dyn Fn() -> bool) -> Result<Picture> {
        let (stages, watch) = &mut *self.of.borrow_mut();
        stages.upscale(self.name, picture, &mut |part, parts| watch.upscaled(part, parts))
    }
}

/// The middle of `(batch, channels, rows, columns)`, of the size that is drawn.
fn cropped(latents: &Tensor, hires: &Hires) -> Result<Tensor> {
    let (width, height) = hires.size.target();
    let (columns, rows) = hires.size.truncate;
    latents.narrow(2, rows / 2, height / 8)?.narrow(3, columns / 2, width / 8)
}

/// Where prompts count in the size that is drawn.
fn regions(regions: &[RegionPrompt], hires: &Hires) -> Result<Vec<RegionPrompt>> {
    let (width, height) = hires.size.upscale_to;
    let larger = |region: &RegionPrompt| {
        let Some(&[rows, columns]) = region.mask.dims().first_chunk() else { return Ok(region.clone()) };
        let mask = Tensor::clone(&region.mask).reshaped([1, 1, rows, columns])?;
        let mask = resize_latents(&mask, height / 8, width / 8, LatentFilter::BilinearAntialiased)?;
        let mask = Arc::new(cropped(&mask, hires)?.get(0)?.get(0)?);
        Ok(RegionPrompt { mask, ..region.clone() })
    };
    regions.iter().map(larger).collect()
}

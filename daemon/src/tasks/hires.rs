//! Hires fix: what a request says of its second pass, for the pipeline, and what pictures tell of it.

use std::collections::HashSet;
use std::sync::Arc;

use latentd_client::protocol::{Prompt, Txt2ImgParams};
use latentd_models::image::{LONGEST_SIDE, MOST_PIXELS, Picture};
use latentd_models::nn::Precision;
use latentd_models::pipeline::{self, HiresSize, HiresUpscaler};
use latentd_models::prompt::Wording;
use latentd_models::sampling::{Sampler, Schedule};

use super::hooks::Hashing;
use super::hypernetworks::Hypernetworks;
use super::infotext::Told;
use super::loras::Loras;
use super::names;
use super::notices::Notices;
use super::output::Output;
use super::plugins::Asking;
use super::prompts::RequestPrompts;
use super::sampling;
use super::studio::Studio;
use super::tags::Tags;
use super::task::Watch;
use crate::error::{Class, Error, Result};
use crate::library::ModelFiles;
use crate::memory::{HiresWish, Known};
use crate::plugins::{Engine, Kind};
use crate::styles::Style;

/// A1111's `denoising_strength`.
const USUAL_STRENGTH: f64 = 0.75;

/// What A1111 calls having none of its own.
const SAME_SAMPLER: &str = "Use same sampler";
const SAME_SCHEDULER: &str = "Use same scheduler";
const SAME_CHECKPOINT: &str = "Use same checkpoint";

/// The second pass of a request, settled but for its checkpoint.
pub(super) struct HiresFields {
    sampler: Option<Sampler>,
    schedule: Option<Schedule>,
    upscaler: HiresUpscaler,
    /// The plugin's engine that the upscaler is, if it is one.
    engine: Option<Engine>,
    strength: f64,
    /// The request's prompts as they are in the second pass, if that has any of its own.
    prompts: Option<RequestPrompts>,
    /// Which of both it has.
    own: [bool; 2],
}

/// With what it is drawn, as far as pictures tell of that.
#[derive(Clone, Default)]
pub(super) struct HiresNetworks {
    loras: Loras,
    hypernetworks: Hypernetworks,
}

/// The request without a second pass.
pub(super) fn without(params: Txt2ImgParams) -> Txt2ImgParams {
    let default = Txt2ImgParams::default();
    Txt2ImgParams {
        denoising_strength: None,
        enable_hr: false,
        hr_scale: default.hr_scale,
        hr_resize_x: 0,
        hr_resize_y: 0,
        hr_second_pass_steps: 0,
        hr_upscaler: default.hr_upscaler,
        hr_prompt: default.hr_prompt,
        hr_negative_prompt: default.hr_negative_prompt,
        hr_sampler_name: None,
        hr_scheduler: None,
        hr_checkpoint_name: None,
        hr_cfg: None,
        save_images_before_highres_fix: false,
        ..params
    }
}

/// What a field says, unless that is to have none of its own.
fn said<'a>(field: Option<&'a String>, same: &str) -> Option<&'a str> {
    field.map(String::as_str).filter(|name| !name.is_empty() && *name != same)
}

impl HiresFields {
    /// Settles them; `None` if there is no second pass. `params` say then what was left out, and else nothing of one.
    pub(super) fn resolve(
        params: &mut Txt2ImgParams,
        styles: &[Arc<Style>],
        output: &Output,
        (studio, watch): (&Arc<Studio>, &dyn Watch),
    ) -> Result<Option<Self>> {
        if !params.enable_hr {
            let strength = params.denoising_strength;
            *params = Txt2ImgParams { denoising_strength: strength, ..without(std::mem::take(params)) };
            return Ok(None);
        }
        let (sampler, schedule) = sampler_and_schedule(params)?;
        let (upscaler, engine) = upscaler(params, studio, watch)?;
        let is_own = |own: &Prompt, first: &Prompt| *own != Prompt::default() && own != first;
        let own = [
            is_own(&params.hr_prompt, &params.prompt),
            is_own(&params.hr_negative_prompt, &params.negative_prompt),
        ];
        let chosen = |is_own: bool, own: &Prompt, first: &Prompt| if is_own { own } else { first }.clone();
        let second = || Txt2ImgParams {
            prompt: chosen(own[0], &params.hr_prompt, &params.prompt),
            negative_prompt: chosen(own[1], &params.hr_negative_prompt, &params.negative_prompt),
            ..Txt2ImgParams::default()
        };
        let in_field = |error: Error| match error.text.split_once("prompt: ") {
            Some(("" | "negative_", _)) => Error::new(error.class, format!("hr_{}", error.text)),
            _ => error,
        };
        let has_own = own.contains(&true);
        let resolve = || RequestPrompts::resolve(&second(), styles, output).map_err(in_field);
        let prompts = has_own.then(resolve).transpose()?;
        let strength = *params.denoising_strength.get_or_insert(USUAL_STRENGTH);
        Ok(Some(Self { sampler, schedule, upscaler, engine, strength, prompts, own }))
    }

    /// The prompts that it has of its own.
    pub(super) fn prompts(&self) -> Option<&RequestPrompts> {
        self.prompts.as_ref()
    }

    /// What it is drawn with, and how, if that is not what the first pass is drawn with.
    pub(super) fn networks(
        &self,
        params: &Txt2ImgParams,
        (own_files, own_known): (&ModelFiles, &Arc<Known>),
        (precision, first): (Precision, &Wording),
        (studio, hashing, tags): (&Studio, &Hashing, &Tags),
        notices: &mut Notices,
    ) -> Result<(HiresNetworks, Option<HiresWish>)> {
        let mut other = None;
        if let Some(name) = said(params.hr_checkpoint_name.as_ref(), SAME_CHECKPOINT) {
            let in_field = |error: Error| {
                let text =
                    error.text.strip_prefix("checkpoint").map(|text| format!("hr_checkpoint_name{text}"));
                Error::new(error.class, text.unwrap_or(error.text))
            };
            let files = studio.files(Some(name), params.vae.as_deref(), hashing).map_err(in_field)?;
            if files.checkpoint.identity() != own_files.checkpoint.identity() {
                let known = studio.device.memory.known(&files, precision)?;
                self.check_other(name, &known, own_known)?;
                other = Some((files, known));
            }
        }
        let wording = self.prompts.as_ref().map_or(Ok(first), RequestPrompts::first)?;
        if other.is_none() && self.prompts.is_none() {
            return Ok((HiresNetworks::default(), None));
        }
        let is_other = other.is_some();
        let (files, known) = other.unwrap_or_else(|| (own_files.clone(), Arc::clone(own_known)));
        let loras = Loras::resolve(wording, &params.loras, &known, (&studio.library, tags), notices)?;
        let hypernetworks = Hypernetworks::resolve(wording, &known, &studio.library, notices)?;
        let wish = (is_other || wording.networks != first.networks).then(|| HiresWish {
            files,
            known,
            changes: loras.changes.clone(),
            hypernetworks: hypernetworks.wishes.clone(),
            is_other,
        });
        Ok((HiresNetworks { loras, hypernetworks }, wish))
    }

    /// Refuses a checkpoint that what the first one drew means nothing to.
    fn check_other(&self, name: &str, other: &Known, own: &Known) -> Result<()> {
        let latents = |known: &Known| (known.facts.family.latent_channels, known.facts.family.latent_scale);
        if matches!(self.upscaler, HiresUpscaler::Latent(_)) && latents(other) != latents(own) {
            let (other, own) = (other.facts.family.name, own.facts.family.name);
            let text = format!(
                "hr_checkpoint_name: '{name}' is {other}, whose latents are not those of {own}; give one of {own}, or an \
                 hr_upscaler of pixels, such as Lanczos"
            );
            return Err(Error::new(Class::Model, text));
        }
        Ok(())
    }

    /// The engine that it needs, for those who are asked while it is drawn.
    pub(super) fn take_engine(&mut self) -> Option<Engine> {
        self.engine.take()
    }

    /// Refuses an engine that makes more of a picture of this size than can be worked on.
    pub(super) fn check_engine(
        &self,
        (width, height): (usize, usize),
        hires: &pipeline::Hires,
    ) -> Result<()> {
        let Some(engine) = &self.engine else { return Ok(()) };
        let (wide, high) =
            Picture::largest_on_the_way((width, height), hires.size.upscale_to, engine.scale());
        if wide.max(high) <= LONGEST_SIDE && wide.saturating_mul(high) <= MOST_PIXELS {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "hr_upscaler: '{}' would make {width}x{height} into {wide}x{high} on the way; sides of {LONGEST_SIDE} and \
             {MOST_PIXELS} pixels are possible: give a smaller hr_scale or another upscaler",
            engine.entry
        )))
    }

    /// For the pipeline, over a first pass of this size.
    pub(super) fn pass(&self, params: &Txt2ImgParams, (width, height): (usize, usize)) -> pipeline::Hires {
        let [prompt, negative_prompt] = match self.prompts.as_ref().map(RequestPrompts::texts) {
            Some([prompt, negative_prompt]) => [Some(prompt), Some(negative_prompt)],
            None => [None, None],
        };
        let (x, y) = (params.hr_resize_x as usize, params.hr_resize_y as usize);
        pipeline::Hires {
            size: HiresSize::new(width, height, params.hr_scale, x, y),
            steps: params.hr_second_pass_steps as usize,
            denoising_strength: self.strength,
            upscaler: self.upscaler.clone(),
            prompt,
            negative_prompt,
            sampler: self.sampler,
            schedule: self.schedule,
            cfg_scale: params.hr_cfg,
            extra_noise: 0.0,
            keeps_first: params.save_images_before_highres_fix,
        }
    }

    /// What pictures tell beside `told`, which is of the first pass: what has an effect on either.
    pub(super) fn told(
        &self,
        told: Txt2ImgParams,
        params: &Txt2ImgParams,
        first: &pipeline::Txt2Img,
    ) -> Txt2ImgParams {
        let default = Txt2ImgParams::default();
        let sampler = self.sampler.unwrap_or(first.sampler);
        let schedule = self.schedule.unwrap_or(first.schedule);
        let named = pipeline::Txt2Img { sampler, schedule, ..pipeline::Txt2Img::default() }.named_schedule();
        let is_resized = params.hr_resize_x > 0 || params.hr_resize_y > 0;
        Txt2ImgParams {
            denoising_strength: Some(self.strength),
            enable_hr: true,
            hr_scale: if is_resized { default.hr_scale } else { params.hr_scale },
            hr_resize_x: params.hr_resize_x,
            hr_resize_y: params.hr_resize_y,
            hr_second_pass_steps: params.hr_second_pass_steps,
            hr_upscaler: self.upscaler.name().to_owned(),
            // Each picture tells its own, and the checkpoint's hash.
            hr_prompt: Prompt::default(),
            hr_negative_prompt: Prompt::default(),
            hr_checkpoint_name: None,
            hr_sampler_name: (sampler != first.sampler).then(|| sampler.name.to_owned()),
            hr_scheduler: (named != first.named_schedule()).then(|| named.to_string()),
            hr_cfg: params.hr_cfg.filter(|cfg| cfg.to_bits() != params.cfg_scale.to_bits()),
            ..sampling::either(told, &sampling::settled(params.clone(), sampler, schedule))
        }
    }

    /// What a picture tells of the prompts of its second pass. What the request has beside its prompts is in them if `beside`
    /// says so.
    pub(super) fn with_prompts(
        &self,
        told: Told,
        index: usize,
        networks: &HiresNetworks,
        beside: bool,
    ) -> Result<Told> {
        let Some(prompts) = &self.prompts else { return Ok(told) };
        let HiresNetworks { loras, hypernetworks } = networks;
        let [_, negative_prompt] = prompts.texts();
        let unless_none = |text: &str| if text.is_empty() { " ".into() } else { text.into() };
        let mut told = told;
        if self.own[0] {
            told.request.hr_prompt = prompts.told_whole(index, loras, hypernetworks, beside)?.into();
        }
        if self.own[1] {
            told.request.hr_negative_prompt = unless_none(negative_prompt.of(index));
        }
        Ok(told)
    }
}

impl HiresNetworks {
    /// The hashes of LoRAs, those of the first pass before others.
    pub(super) fn lora_hashes(&self, first: &str, cancelled: &dyn Fn() -> bool) -> Result<String> {
        let second = self.loras.hashes(cancelled)?;
        let mut all: Vec<&str> = first.split(", ").filter(|pair| !pair.is_empty()).collect();
        for pair in second.split(", ").filter(|pair| !pair.is_empty()) {
            if !all.contains(&pair) {
                all.push(pair);
            }
        }
        Ok(all.join(", "))
    }
}

/// The upscaler that is named, and its engine if it is a plugin's.
fn upscaler(
    params: &Txt2ImgParams,
    studio: &Arc<Studio>,
    watch: &dyn Watch,
) -> Result<(HiresUpscaler, Option<Engine>)> {
    let name = &params.hr_upscaler;
    if let Some(upscaler) = HiresUpscaler::from_name(name) {
        return Ok((upscaler, None));
    }
    let all: Vec<HiresUpscaler> = HiresUpscaler::all().collect();
    let beside: Vec<&str> = all.iter().map(HiresUpscaler::name).collect();
    let asking = Asking::new(watch, &studio.device.memory, studio, names::noise_source(params.rng));
    let asking = asking.with_versions(params.plugin_versions.clone());
    let engine = studio.plugins.engine(Kind::Upscaler, name, ("hr_upscaler", &beside), &asking)?;
    Ok((HiresUpscaler::Named(name.to_owned()), Some(engine)))
}

/// The sampler and the schedule of the second pass, as far as it has its own.
fn sampler_and_schedule(params: &Txt2ImgParams) -> Result<(Option<Sampler>, Option<Schedule>)> {
    let sampler = said(params.hr_sampler_name.as_ref(), SAME_SAMPLER);
    let scheduler = said(params.hr_scheduler.as_ref(), SAME_SCHEDULER);
    let in_field = |error: Error| Error::new(error.class, format!("hr_{}", error.text));
    let usual = Sampler::default();
    let (found, schedule) =
        names::sampler_and_schedule(sampler.unwrap_or(usual.name), scheduler.unwrap_or("Automatic"))
            .map_err(in_field)?;
    let has_schedule = scheduler.is_some() || schedule != Schedule::Automatic;
    Ok((sampler.map(|_| found), has_schedule.then_some(schedule)))
}

/// What the text encoder is given in either pass.
pub(super) fn texts_of(drawing: &pipeline::Txt2Img) -> Result<Vec<String>> {
    let (mut all, mut seen) = (vec![], HashSet::new());
    for image in 0..drawing.told_apart() {
        all.extend(drawing.texts_of(image)?.into_iter().filter(|text| seen.insert(text.clone())));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_same_is_none_of_its_own() {
        let of = |sampler: Option<&str>, scheduler: Option<&str>| Txt2ImgParams {
            hr_sampler_name: sampler.map(str::to_owned),
            hr_scheduler: scheduler.map(str::to_owned),
            ..Txt2ImgParams::default()
        };
        for (sampler, scheduler, wanted, schedule) in [
            (None, None, None, None),
            (Some(SAME_SAMPLER), Some(SAME_SCHEDULER), None, None),
            (Some(""), Some(""), None, None),
            (Some("Euler"), None, Some("Euler"), None),
            (Some("DPM++ 2M Karras"), None, Some("DPM++ 2M"), Some(Schedule::Karras)),
            (None, Some("Automatic"), None, Some(Schedule::Automatic)),
            (Some("Heun"), Some("beta"), Some("Heun"), Some(Schedule::Beta)),
        ] {
            let found = sampler_and_schedule(&of(sampler, scheduler)).expect("known");
            assert_eq!(
                (found.0.map(|found| found.name), found.1),
                (wanted, schedule),
                "{sampler:?}, {scheduler:?}"
            );
        }
        for (params, expected) in [
            (of(Some("Eular"), None), "hr_sampler_name: 'Eular' is not known"),
            (of(None, Some("Karas")), "hr_scheduler: 'Karas' is not known"),
        ] {
            let error = sampler_and_schedule(&params).expect_err("refused");
            assert!(error.text.starts_with(expected) && error.text.contains("did you mean"), "{error}");
        }
    }
}

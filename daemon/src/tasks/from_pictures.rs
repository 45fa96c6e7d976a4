//! What pictures are drawn from: the fields of `img2img` beside those of `txt2img`, settled.

use latentd_client::protocol::{ImageIn, Img2ImgParams, Masks, SoftInpaintingParams};
use latentd_models::image::colour::ColourCorrection;
use latentd_models::image::inpaint::{Inpaint, Mask, Preparation, Prepared};
use latentd_models::image::outpaint::Job;
use latentd_models::image::{Fit, Picture, PictureHeader};
use latentd_models::pipeline::{self, InitImage, MaskedContent, SoftInpainting};
use latentd_models::sampling::PartOfSteps;
use latentd_models::{Tensor, model::ModelFacts};

use super::continuation::Continuation;
use super::given::{Given, Sources, wrong};
use super::loopback::Loopback;
use super::notices::Notices;
use super::sd_upscale::{Part, SdUpscale};
use super::studio::Studio;
use crate::error::{Class, Error, Result};
use crate::plugins::{Engine, PassSources};

/// A1111's `denoising_strength`.
const USUAL_STRENGTH: f64 = 0.75;

/// What pictures are drawn from. They are kept as they were given, and decoded in their turn.
pub(super) struct FromPictures {
    pictures: Vec<Given>,
    masks: Vec<Given>,
    /// `(width, height)` of the first picture, as it is seen.
    first_size: (usize, usize),
    /// That of the picture with the most pixels.
    largest_own: (usize, usize),
    preparation: Preparation,
    masked_content: MaskedContent,
    strength: f64,
    fixes_steps: bool,
    noise_multiplier: f64,
    extra_noise: f64,
    round: bool,
    soft: Option<SoftInpainting>,
    image_cfg_scale: Option<f64>,
    mask_weight: f64,
    pub loopback: Option<Loopback>,
    pub continuation: Option<Continuation>,
    pub enlargement: Option<SdUpscale>,
}

/// What is drawn from, once its turn has come.
pub(super) struct Ready {
    prepared: Vec<Prepared>,
    pub notices: Vec<String>,
}

impl FromPictures {
    /// Settles all but the size. `params` name the pictures by their SHA-256 from then on, and say what was left out. The pictures
    /// stay for a while if somebody is to draw from them again.
    pub(super) fn resolve(
        params: &mut Img2ImgParams,
        sources: &Sources,
        stay: bool,
        notices: &mut Notices,
    ) -> Result<Self> {
        let batch = params.drawing.batch_size as usize;
        let pictures = given("init_images", std::mem::take(&mut params.init_images), batch, params, sources)?;
        let first =
            pictures.first().ok_or_else(|| Error::invalid("init_images: is empty; give a picture"))?;
        let first_size = seen_size("init_images[0]", first)?;
        let mut largest_own = first_size;
        for (place, given) in pictures.iter().enumerate().skip(1) {
            let size = seen_size(&format!("init_images[{place}]"), given)?;
            largest_own = larger(largest_own, size);
        }
        let masks = match params.mask.take() {
            Some(Masks::All(mask)) => vec![Given::new("mask", mask, sources)?],
            Some(Masks::Each(masks)) => given("mask", masks, batch, params, sources)?,
            None => vec![],
        };
        let keep = |given: &Given| ImageIn::blob(if stay { given.keep(sources) } else { given.sha256() });
        params.init_images = pictures.iter().map(keep).collect();
        params.mask = match masks.as_slice() {
            [] => None,
            [mask] => Some(keep(mask).into()),
            masks => Some(Masks::Each(masks.iter().map(keep).collect())),
        };
        if params.loopback.is_some() {
            if batch != 1 {
                let text =
                    format!("loopback: draws one picture after the other; set batch_size to 1, not {batch}");
                return Err(Error::invalid(text));
            }
            if [&params.drawing.prompt, &params.drawing.negative_prompt]
                .iter()
                .any(|prompt| prompt.texts().len() > 1)
            {
                return Err(Error::invalid(
                    "loopback: draws from one prompt, not from a list; give one text",
                ));
            }
        }
        if let Some(both) = params.mask_blur.take() {
            (params.mask_blur_x, params.mask_blur_y) = (both, both);
        }
        let strength = *params.drawing.denoising_strength.get_or_insert(USUAL_STRENGTH);
        let is_masked = !masks.is_empty();
        let without = [
            ("inpainting_mask_invert", params.inpainting_mask_invert == 1),
            ("soft_inpainting", params.soft_inpainting.is_some()),
        ];
        for (field, _) in without.iter().filter(|(_, is_given)| *is_given && !is_masked) {
            let text = format!("{field}: does nothing without a mask; give one");
            notices.not_applied(Class::InvalidParams, text)?;
        }
        if params.soft_inpainting.is_some() {
            // As in A1111: what is between is what it is for.
            params.mask_round = false;
        }
        let inpaint = Inpaint {
            inverted: params.inpainting_mask_invert == 1,
            round: params.mask_round,
            keeps_original: params.soft_inpainting.is_some(),
            blur: (params.mask_blur_x, params.mask_blur_y),
            fills: params.inpainting_fill != 1,
            only_masked: params.inpaint_full_res.then_some(params.inpaint_full_res_padding as usize),
        };
        let preparation = Preparation {
            size: (0, 0),
            fit: match params.resize_mode {
                0 => Some(Fit::Stretch),
                1 => Some(Fit::Crop),
                2 => Some(Fit::Fill),
                _ => None,
            },
            background: colour(&params.img2img_background_color)?,
            corrects_colour: params.img2img_color_correction,
            inpaint,
        };
        Ok(Self {
            pictures,
            masks,
            first_size,
            largest_own,
            preparation,
            masked_content: match params.inpainting_fill {
                2 => MaskedContent::Noise,
                3 => MaskedContent::Nothing,
                _ => MaskedContent::Picture,
            },
            strength,
            fixes_steps: params.img2img_fix_steps,
            noise_multiplier: params.initial_noise_multiplier.unwrap_or(1.0),
            extra_noise: params.img2img_extra_noise,
            round: params.mask_round,
            soft: params.soft_inpainting.filter(|_| is_masked).map(soft_inpainting),
            image_cfg_scale: params.image_cfg_scale,
            mask_weight: params.inpainting_mask_weight,
            loopback: params.loopback.take().map(Loopback::new),
            continuation: None,
            enlargement: None,
        })
    }

    /// The size that is drawn at if the request names none; the checkpoint's own where that is the better one.
    pub(super) fn usual_size(&self) -> Option<(usize, usize)> {
        if self.is_in_parts() {
            return None;
        }
        let is_part = !self.masks.is_empty() && self.preparation.inpaint.only_masked.is_some();
        let whole = |side: usize| (side / 8 * 8).max(8);
        (!is_part).then(|| (whole(self.first_size.0), whole(self.first_size.1)))
    }

    /// Settles the size.
    pub(super) fn drawn_at(mut self, size: (usize, usize), notices: &mut Notices) -> Result<Self> {
        self.preparation.size = size;
        let planned = |continuation: Continuation| continuation.planned(self.first_size, size, notices);
        self.continuation = self.continuation.map(planned).transpose()?;
        let planned = |enlargement: SdUpscale| enlargement.planned(self.first_size, size);
        self.enlargement = self.enlargement.map(planned).transpose()?;
        Ok(self)
    }

    /// The same where masks may be exchanged as it is drawn.
    pub(super) fn keeping_originals(mut self) -> Self {
        self.preparation.inpaint.keeps_original = true;
        self
    }

    /// What of the pictures plugins may exchange.
    pub(super) fn sources<'a>(&self, ready: &'a Ready) -> PassSources<'a> {
        PassSources { prepared: &ready.prepared, rounds: self.round }
    }

    /// `(width, height)` of the largest that is drawn.
    fn drawn_size(&self) -> (usize, usize) {
        match (&self.continuation, &self.enlargement) {
            (Some(continuation), _) => continuation.largest(),
            (None, Some(enlargement)) => enlargement.largest(),
            (None, None) => self.preparation.size,
        }
    }

    /// Whether it is drawn part by part, each of a size of its own.
    pub(super) fn is_in_parts(&self) -> bool {
        self.continuation.is_some() || self.enlargement.is_some()
    }

    /// `(width, height)` of what goes through the VAE where that is larger than what is drawn.
    pub(super) fn largest(&self) -> (usize, usize) {
        // Of a mask that turns out to be empty nothing is cut out.
        let may_be_stretched = self.masks.is_empty() || self.preparation.inpaint.only_masked.is_some();
        let is_stretched = self.preparation.fit.is_none() && may_be_stretched;
        if is_stretched { larger(self.drawn_size(), self.largest_own) } else { self.drawn_size() }
    }

    /// More predictions of an image than its texts give.
    pub(super) fn more_branches(&self, drawing: &pipeline::Txt2Img, facts: &ModelFacts) -> usize {
        self.request(drawing.clone(), vec![]).more_branches(facts)
    }

    /// `(width, height)` of the pictures that are given back of what is drawn.
    pub(super) fn finished_size(&self) -> (usize, usize) {
        if let Some(continuation) = &self.continuation {
            return continuation.finished;
        }
        if let Some(enlargement) = &self.enlargement {
            return enlargement.finished;
        }
        let is_part = !self.masks.is_empty() && self.preparation.inpaint.only_masked.is_some();
        if is_part { self.largest_own } else { self.preparation.size }
    }

    /// Pictures that are given back for each that is asked for, of so many batches.
    pub(super) fn pictures_each(&self, batches: u32) -> u64 {
        self.loopback.filter(|_| batches == 1).map_or(1, |loopback| loopback.loops as u64)
    }

    /// Steps before anything is drawn.
    pub(super) fn steps_before(&self, engines: &[Engine]) -> Result<usize> {
        self.enlargement.as_ref().map_or(Ok(0), |enlargement| enlargement.steps(self.first_size, engines))
    }

    /// Bytes that are taken before anything is drawn.
    pub(super) fn bytes_before(&self, engines: &[Engine]) -> Result<u64> {
        self.enlargement.as_ref().map_or(Ok(0), |enlargement| enlargement.bytes(self.first_size, engines))
    }

    /// Sampler steps of a batch, with all its loops.
    pub(super) fn steps(&self, steps: usize) -> usize {
        let of = |strength| {
            PartOfSteps::new(steps, strength, self.fixes_steps).map_or(steps, |part| part.kept + 1)
        };
        if let Some(continuation) = &self.continuation {
            return of(self.strength) * continuation.drawn.len();
        }
        if let Some(enlargement) = &self.enlargement {
            return enlargement.drawn.iter().map(|(_, own)| of(own.unwrap_or(self.strength))).sum();
        }
        match &self.loopback {
            Some(loopback) => {
                (0..loopback.loops).map(|number| of(loopback.strength(self.strength, number))).sum()
            }
            None => of(self.strength),
        }
    }

    /// What the pipeline checks before there are pictures: the request with one of no content.
    pub(super) fn check(&self, drawing: &pipeline::Txt2Img, facts: &ModelFacts) -> Result<()> {
        let (width, height) = self.drawn_size();
        let drawing = pipeline::Txt2Img { width, height, ..drawing.clone() };
        let [rows, columns] = [height / 8, width / 8];
        let nothing = Tensor::full(0.0, [1, facts.family.latent_channels, rows, columns]);
        Ok(self.request(drawing, vec![InitImage::Latents(nothing)]).check(facts)?)
    }

    /// Decodes all, and makes them ready. Stops between two once `cancelled` says so.
    pub(super) fn ready(&self, studio: &Studio, cancelled: &dyn Fn() -> bool) -> Result<Ready> {
        let sources = Sources::of(studio);
        let mut ready = Ready { prepared: vec![], notices: vec![] };
        for index in 0..self.pictures.len().max(self.masks.len()) {
            if cancelled() {
                return Err(Error::new(Class::Cancelled, "cancelled while its pictures were decoded"));
            }
            let prepared = self.prepared(index, &self.pictures, &self.preparation, &sources)?;
            if !self.masks.is_empty() && prepared.mask.is_none() {
                ready.notices.push(
                    "the mask is empty, so all of the picture was drawn; paint what is to be drawn, or set \
                     inpaint_full_res to false to draw nothing"
                        .to_owned(),
                );
            }
            ready.prepared.push(prepared);
        }
        ready.notices.dedup();
        Ok(ready)
    }

    fn prepared(
        &self,
        index: usize,
        pictures: &[Given],
        preparation: &Preparation,
        sources: &Sources,
    ) -> Result<Prepared> {
        let field = format!("init_images[{}]", index % pictures.len().max(1));
        let picture = decoded(&field, pictures, index, sources)?
            .ok_or_else(|| Error::invalid(format!("{field}: is not there; give a picture")))?;
        let of_mask = format!("mask[{}]", index % self.masks.len().max(1));
        let mask = decoded(&of_mask, &self.masks, index, sources)?;
        preparation.prepare(&picture, mask.as_ref()).map_err(|error| wrong(&field, &error))
    }

    /// The next loop's: from what was drawn, which has what it has where it is masked, in the colours of the first.
    pub(super) fn looped(&self, drawn: &Given, index: usize, studio: &Studio) -> Result<Ready> {
        let sources = Sources::of(studio);
        let inpaint = Inpaint { fills: false, ..self.preparation.inpaint };
        let preparation = Preparation { inpaint, corrects_colour: false, ..self.preparation.clone() };
        let mut prepared = self.prepared(index, std::slice::from_ref(drawn), &preparation, &sources)?;
        if self.preparation.corrects_colour {
            let field = format!("init_images[{}]", index % self.pictures.len().max(1));
            let first = decoded(&field, &self.pictures, index, &sources)?;
            let first =
                first.map(|first| ColourCorrection::of(&first.over_colour(self.preparation.background)?));
            if let Some(first) = first.transpose()? {
                prepared = prepared.corrected_as(&first);
            }
        }
        Ok(Ready { prepared: vec![prepared], notices: vec![] })
    }

    /// The first picture.
    pub(super) fn first(&self, sources: &Sources) -> Result<Picture> {
        decoded("init_images[0]", &self.pictures, 0, sources)?
            .ok_or_else(|| Error::invalid("init_images: is empty; give a picture"))
    }

    /// The same as networks see it, without opacity.
    pub(super) fn first_opaque(&self, sources: &Sources) -> Result<Picture> {
        Ok(self.first(sources)?.over_colour(self.preparation.background)?)
    }

    /// A part of an enlarged picture, or what its mask says of that.
    pub(super) fn part_of(
        &self,
        picture: &Picture,
        mask: Option<&Picture>,
        part: &Part<'_>,
    ) -> Result<Ready> {
        let inpaint = Inpaint {
            inverted: false,
            blur: (part.blur, part.blur),
            fills: false,
            only_masked: Some(part.padding),
            ..self.preparation.inpaint
        };
        let fit = Some(Fit::Stretch);
        let preparation = Preparation { size: part.size, fit, inpaint, ..self.preparation.clone() };
        Ok(Ready { prepared: vec![preparation.prepare(picture, mask)?], notices: vec![] })
    }

    /// A part of a continued picture.
    pub(super) fn part(&self, job: &Job) -> Result<Ready> {
        let Inpaint { fills, keeps_original, .. } = self.preparation.inpaint;
        Ok(Ready { prepared: vec![job.prepare(fills, keeps_original)?], notices: vec![] })
    }

    /// The pipeline's request.
    pub(super) fn begun(
        &self,
        drawing: pipeline::Txt2Img,
        ready: &Ready,
        Way { strength, masked_content }: Way,
    ) -> Result<pipeline::Img2Img> {
        let init = ready.prepared.iter().map(|prepared| {
            let (tensor, size) = (prepared.tensor()?, (prepared.picture.width, prepared.picture.height));
            Ok(if size == (drawing.width, drawing.height) {
                InitImage::Picture(tensor)
            } else {
                InitImage::Stretched(tensor)
            })
        });
        let init = init.collect::<Result<Vec<_>>>()?;
        let (rows, columns) = (drawing.height / 8, drawing.width / 8);
        let on_latents =
            |mask: &Mask| mask.on_latents(rows, columns, self.round)?.reshaped([1, rows, columns]);
        let latent_mask = ready.masks([rows, columns], on_latents)?;
        let size = [drawing.height, drawing.width];
        let conditioning_mask = ready.masks(size, |mask| mask.on_pixels(self.round))?;
        let request = self.request(drawing, init);
        Ok(pipeline::Img2Img {
            denoising_strength: strength,
            masked_content,
            latent_mask,
            conditioning_mask,
            ..request
        })
    }

    /// How the first picture of each is drawn.
    pub(super) fn way(&self) -> Way {
        Way { strength: self.strength, masked_content: self.masked_content }
    }

    fn request(&self, drawing: pipeline::Txt2Img, init: Vec<InitImage>) -> pipeline::Img2Img {
        pipeline::Img2Img {
            drawing,
            init,
            denoising_strength: self.strength,
            img2img_fix_steps: self.fixes_steps,
            initial_noise_multiplier: self.noise_multiplier,
            img2img_extra_noise: self.extra_noise,
            latent_mask: None,
            masked_content: self.masked_content,
            soft_inpainting: self.soft,
            image_cfg_scale: self.image_cfg_scale,
            conditioning_mask: None,
            inpainting_mask_weight: self.mask_weight,
        }
    }
}

/// How far from what it begins with something is drawn, and what that is where it is masked.
#[derive(Clone, Copy)]
pub(super) struct Way {
    pub strength: f64,
    pub masked_content: MaskedContent,
}

impl Ready {
    /// The one of this number alone.
    pub(super) fn one(&self, index: usize) -> Self {
        Self { prepared: self.of(index).cloned().into_iter().collect(), notices: vec![] }
    }

    /// The masks of all pictures, `(pictures, rows, columns)` as `of_one` makes each; 1 where a picture has none. None if none has.
    fn masks(
        &self,
        [rows, columns]: [usize; 2],
        of_one: impl Fn(&Mask) -> latentd_models::Result<Tensor>,
    ) -> Result<Option<Tensor>> {
        if self.prepared.iter().all(|prepared| prepared.mask.is_none()) {
            return Ok(None);
        }
        let masks = self.prepared.iter().map(|prepared| match &prepared.mask {
            Some(mask) => of_one(mask),
            None => Ok(Tensor::full(1.0, [1, rows, columns])),
        });
        let masks = masks.collect::<latentd_models::Result<Vec<_>>>()?;
        Ok(Some(Tensor::cat(&masks.iter().collect::<Vec<_>>(), 0)?))
    }

    /// What is drawn of the picture of this number.
    pub(super) fn of(&self, index: usize) -> Option<&Prepared> {
        self.prepared.get(index % self.prepared.len().max(1))
    }
}

/// A list of pictures, of which there must be one, one for each of a batch, or one for each of the request.
fn given(
    field: &str,
    images: Vec<ImageIn>,
    batch: usize,
    params: &Img2ImgParams,
    sources: &Sources,
) -> Result<Vec<Given>> {
    let all = batch * params.drawing.n_iter as usize;
    let count = images.len();
    if ![1, batch, all].contains(&count) {
        return Err(Error::invalid(format!(
            "{field}: has {count} pictures for {all} that are to be drawn, {batch} in a batch; give one, or one for each, or \
             set batch_size to {count}"
        )));
    }
    let one = |(place, image)| Given::new(&format!("{field}[{place}]"), image, sources);
    images.into_iter().enumerate().map(one).collect()
}

/// The picture of this number, turned as it is seen; the only one if there is one.
fn decoded(field: &str, all: &[Given], index: usize, sources: &Sources) -> Result<Option<Picture>> {
    let Some(given) = all.get(index % all.len().max(1)) else { return Ok(None) };
    let orientation = given.orientation(field)?;
    given.decoded(field, sources, |picture| picture.oriented(orientation)).map(Some)
}

/// The size with more pixels.
fn larger(one: (usize, usize), other: (usize, usize)) -> (usize, usize) {
    if other.0 * other.1 > one.0 * one.1 { other } else { one }
}

/// `(width, height)` as it is seen.
fn seen_size(field: &str, given: &Given) -> Result<(usize, usize)> {
    let PictureHeader { width, height, .. } = given.header(field)?;
    let (width, height) = (width as usize, height as usize);
    Ok(if given.orientation(field)?.is_transposed() { (height, width) } else { (width, height) })
}

fn soft_inpainting(params: SoftInpaintingParams) -> SoftInpainting {
    SoftInpainting {
        mask_blend_power: params.mask_blend_power,
        mask_blend_scale: params.mask_blend_scale,
        inpaint_detail_preservation: params.inpaint_detail_preservation,
        composite_mask_influence: params.composite_mask_influence,
        composite_difference_threshold: params.composite_difference_threshold,
        composite_difference_contrast: params.composite_difference_contrast,
    }
}

/// `#rrggbb`.
fn colour(text: &str) -> Result<[u8; 3]> {
    let digits = text
        .strip_prefix('#')
        .filter(|digits| digits.len() == 6 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
    let number = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let [_, red, green, blue] = number
        .ok_or_else(|| {
            Error::invalid(format!("img2img_background_color: '{text}' is no colour; give one as #ffffff"))
        })?
        .to_be_bytes();
    Ok([red, green, blue])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colour_is_six_digits() {
        assert_eq!(colour("#00ff7F"), Ok([0, 255, 127]));
        for wrong in ["00ff7f0", "#00ff7", "#00ff7é", "#+0ff7f", "white"] {
            let error = colour(wrong).expect_err("refused");
            assert!(error.text.contains("#ffffff"), "{wrong}: {error}");
        }
    }
}

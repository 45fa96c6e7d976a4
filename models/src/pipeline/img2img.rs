//! Image to image: from pictures, or their latents, with noise on them.

use std::cell::OnceCell;
use std::ops::Range;
use std::sync::Arc;

use super::components::Components;
use super::draw::{Begin, Begun, Origin, Output, draw};
use super::encode::{ENCODING, encode, sampled};
use super::guidance::{masked, several_are_wanted};
use super::image_conditioning::{Covered, ImageConditioning, Source};
use super::request::Txt2Img;
use super::soft_inpainting::SoftInpainting;
use super::stages::{Exchanged, Stages};
use super::start::Start;
use super::watch::Watch;
use crate::error::{Error, Result, bail};
use crate::image::{LatentFilter, resize_latents};
use crate::model::{ModelFacts, UNetInput};
use crate::networks::vae::Posterior;
use crate::sampling::{
    Beginning, ImageNoise, NoiseGenerator, PartOfSteps, Sigmas, levels, levels_from_latents,
};
use crate::tensor::Tensor;

/// What is drawn anew. Fields have A1111's meaning.
#[derive(Clone, Debug, PartialEq)]
pub struct Img2Img {
    /// What to draw, and how.
    pub drawing: Txt2Img,
    /// What it begins with: one for all images, one for each of a batch, or one for each.
    pub init: Vec<InitImage>,
    /// How far from that to go, from 0 to 1.
    pub denoising_strength: f64,
    /// Whether `steps` are drawn, whatever the strength; else it is a share of them that is.
    pub img2img_fix_steps: bool,
    /// What the initial noise is multiplied by.
    pub initial_noise_multiplier: f64,
    /// How much of it is added beside that of its level.
    pub img2img_extra_noise: f64,
    /// Where to draw, `(images, height / 8, width / 8)`: one for all images, or one for each. From 1 for anew to 0 for what
    /// they begin with. Everywhere if `None`.
    pub latent_mask: Option<Tensor>,
    /// What images begin with where they are drawn.
    pub masked_content: MaskedContent,
    /// How what is drawn and what it begins with are blended where the mask is grey, if not evenly: the mask is not rounded
    /// then. Nothing without a mask.
    pub soft_inpainting: Option<SoftInpainting>,
    /// For a checkpoint that edits: how much the picture counts, 0 or more. As much as it does in guidance by text alone if
    /// `None`, or 1.
    pub image_cfg_scale: Option<f64>,
    /// For an inpainting checkpoint: where to draw anew, `(images, height, width)` of pixels from 0 to 1, as many as there may be
    /// of `init`; everywhere if `None`. It is shown as it is: A1111 rounds it before, unless `mask_round` is off.
    pub conditioning_mask: Option<Tensor>,
    /// For an inpainting checkpoint: how much of what is beneath that mask it does not get to see, from 0 to 1.
    pub inpainting_mask_weight: f64,
}

/// What an image begins with where it is drawn anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MaskedContent {
    /// What the picture has there.
    #[default]
    Picture,
    /// The noise of its seed.
    Noise,
    /// Nothing: latents of 0.
    Nothing,
}

/// What an image begins with.
#[derive(Clone, Debug, PartialEq)]
pub enum InitImage {
    /// A picture `(1, 3, height, width)` in [−1, 1].
    Picture(Tensor),
    /// Latents `(1, channels, height / 8, width / 8)` in the model's scale.
    Latents(Tensor),
    /// A picture of another size, of whole eighths, whose latents are stretched: A1111's `resize_mode` 3.
    Stretched(Tensor),
}

impl Img2Img {
    /// Refuses what cannot be drawn.
    pub fn check(&self, facts: &ModelFacts) -> Result<()> {
        self.drawing.check(facts)?;
        let wrong = |text: String| Err(Error::Request(text));
        if self.drawing.hires.is_some() {
            return wrong(
                "hires fix is of text to image alone; draw the picture again at its larger size".to_owned(),
            );
        }
        if !(0.0..=1.0).contains(&self.denoising_strength) {
            return wrong(format!("denoising_strength is {}; 0 to 1 is needed", self.denoising_strength));
        }
        for (name, number) in [
            ("initial_noise_multiplier", self.initial_noise_multiplier),
            ("img2img_extra_noise", self.img2img_extra_noise),
        ] {
            if !number.is_finite() {
                return wrong(format!("{name} is {number}; a finite number is needed"));
            }
        }
        self.check_shown(facts)?;
        let images = self.drawing.batch_size * self.drawing.n_iter;
        let batch = self.drawing.batch_size;
        if ![1, batch, images].contains(&self.init.len()) {
            return wrong(format!(
                "init_images are {} for {images} pictures; give one, or one for each, or one for each of a batch",
                self.init.len()
            ));
        }
        let (height, width) = (self.drawing.height, self.drawing.width);
        let [rows, columns] = self.drawing.latents();
        for init in &self.init {
            let (tensor, wanted) = match init {
                InitImage::Stretched(picture) => {
                    check_stretched(picture, facts)?;
                    continue;
                }
                InitImage::Picture(picture) => (picture, [1, 3, height, width]),
                InitImage::Latents(latents) => (latents, [1, facts.family.latent_channels, rows, columns]),
            };
            if tensor.dims() != wanted {
                return wrong(format!("an init image is {:?}; {wanted:?} is needed", tensor.dims()));
            }
        }
        if let Some(mask) = &self.latent_mask {
            let dims = mask.dims();
            if dims.get(1..) != Some(&[rows, columns]) || ![1, batch, images].contains(&mask.dim(0)) {
                return wrong(format!(
                    "the latent mask is {dims:?}; [1, {batch} or {images}, {rows}, {columns}] is needed"
                ));
            }
            if mask.values().iter().any(|value| !(0.0..=1.0).contains(value)) {
                return wrong("the latent mask has values that are not from 0 to 1".to_owned());
            }
        }
        self.soft_inpainting.as_ref().map_or(Ok(()), SoftInpainting::check)?;
        self.beginning(facts).map(drop)
    }

    /// Refuses what a checkpoint that sees a picture cannot be shown; whatever the checkpoint is, so that none hides a mistake.
    fn check_shown(&self, facts: &ModelFacts) -> Result<()> {
        let wrong = |text: String| Err(Error::Request(text));
        if let Some(scale) = self.image_cfg_scale.filter(|scale| !(*scale >= 0.0 && scale.is_finite())) {
            return wrong(format!("image_cfg_scale is {scale}; a number of 0 or more is needed"));
        }
        let weight = self.inpainting_mask_weight;
        if !(0.0..=1.0).contains(&weight) {
            return wrong(format!("inpainting_mask_weight is {weight}; 0 to 1 is needed"));
        }
        if let Some(mask) = &self.conditioning_mask {
            let Txt2Img { batch_size: batch, n_iter, height, width, .. } = self.drawing;
            let (dims, images) = (mask.dims(), batch * n_iter);
            if dims.get(1..) != Some(&[height, width]) || ![1, batch, images].contains(&mask.dim(0)) {
                return wrong(format!(
                    "the mask is {dims:?}; [1, {batch} or {images}, {height}, {width}] is needed"
                ));
            }
            if let Some(value) = mask.values().iter().find(|value| !(0.0..=1.0).contains(*value)) {
                return wrong(format!("a value of the mask is {value}; 0 to 1 is needed"));
            }
        }
        if self.more_branches(facts) > 0 && self.drawing.text_needs()?.branches > 2 {
            return Err(several_are_wanted());
        }
        Ok(())
    }

    /// Predictions of an image that guidance combines beside those of its texts: one without the picture that is edited, where
    /// it counts apart.
    pub fn more_branches(&self, facts: &ModelFacts) -> usize {
        let counts_apart = self.image_cfg_scale.is_some_and(|scale| scale != 1.0);
        usize::from(facts.unet_input == UNetInput::Edit && counts_apart)
    }

    fn part(&self) -> Result<PartOfSteps> {
        PartOfSteps::new(self.drawing.steps, self.denoising_strength, self.img2img_fix_steps)
    }

    /// What the loop begins with, beside the latents.
    fn beginning(&self, facts: &ModelFacts) -> Result<Beginning> {
        let Txt2Img { sampler, schedule, sampling, .. } = &self.drawing;
        let model = facts.sigmas(sampling.zero_terminal_snr);
        let mut beginning = levels_from_latents(sampler, &model, *schedule, self.part()?, &sampling.sampler)?;
        beginning.noise = (beginning.noise + self.img2img_extra_noise) * self.initial_noise_multiplier;
        Ok(beginning)
    }

    /// What an image begins with: where it is drawn, perhaps not what its picture has there.
    fn with_content(&self, latents: Tensor, image: usize) -> Result<Tensor> {
        let Some(masks) = &self.latent_mask else { return Ok(latents) };
        let mask = masks.get(image % masks.dim(0).max(1))?;
        let kept = |latents| masked(latents, &mask.map(|value| 1.0 - value));
        match self.masked_content {
            MaskedContent::Picture => Ok(latents),
            MaskedContent::Nothing => kept(latents),
            MaskedContent::Noise => {
                // Its seed's, whatever its variation.
                let ImageNoise { source, seed, .. } = self.drawing.noise(image);
                let noise = NoiseGenerator::new(source, seed).normal(latents.values().len());
                let noise = Tensor::new(noise, latents.dims())?;
                kept(latents)?.plus(&masked(noise, &mask)?)
            }
        }
    }

    /// The levels that all the steps would visit from noise.
    fn all_levels(&self, facts: &ModelFacts) -> Result<Sigmas> {
        let Txt2Img { sampler, schedule, sampling, .. } = &self.drawing;
        let model = facts.sigmas(sampling.zero_terminal_snr);
        levels(sampler, &model, *schedule, self.part()?.steps, &sampling.sampler)
    }
}

/// Refuses what has no latents, or would be shown to a checkpoint at a size that it cannot see.
fn check_stretched(picture: &Tensor, facts: &ModelFacts) -> Result<()> {
    let (_, channels, height, width) = picture.dims4()?;
    let is_sound = |side: usize| (8..=1 << 14).contains(&side) && side.is_multiple_of(8);
    if picture.dim(0) != 1 || channels != 3 || !is_sound(height) || !is_sound(width) {
        let text = format!(
            "an init image is {:?}; [1, 3, height, width] of whole eighths is needed",
            picture.dims()
        );
        return Err(Error::Request(text));
    }
    if facts.unet_input != UNetInput::Latents {
        return Err(Error::Request(format!(
            "resize_mode 3 stretches latents, and {} sees pictures at the size that is drawn; give another resize_mode",
            facts.unet_input.title()
        )));
    }
    Ok(())
}

/// Draws `n_iter * batch_size` images. The result depends on the request and the model only: what is random in a picture's own
/// encoding comes from each image's seed.
pub fn img2img(
    facts: &ModelFacts,
    components: &mut dyn Components,
    request: &Img2Img,
    watch: &mut dyn Watch,
    stages: &mut dyn Stages,
) -> Result<Vec<Output>> {
    request.check(facts)?;
    let drawing = &request.drawing;
    let beginning = request.beginning(facts)?;
    let sigmas = request.all_levels(facts)?;
    let origin = Origin {
        from: &FromImages { facts, request, beginning: &beginning, encodings: OnceCell::new() },
        strength: Some(request.denoising_strength),
        sigmas: &sigmas,
        visited: &beginning.sigmas.levels,
        calls: drawing.sampler.foreseen_calls(request.part()?.kept + 1),
        image_cfg_scale: request.image_cfg_scale,
    };
    draw(facts, components, drawing, &origin, watch, stages)
}

/// What a request's images begin with.
struct FromImages<'a> {
    facts: &'a ModelFacts,
    request: &'a Img2Img,
    beginning: &'a Beginning,
    /// As they are given, once that is needed.
    encodings: OnceCell<Encodings<'a>>,
}

impl Begin for FromImages<'_> {
    fn begin(
        &self,
        images: Range<usize>,
        exchanged: Vec<Exchanged>,
        components: &mut dyn Components,
        watch: &mut dyn Watch,
    ) -> Result<Begun> {
        let Self { facts, request, beginning, encodings } = self;
        if exchanged.iter().any(|exchanged| *exchanged != Exchanged::default()) {
            let request = request.exchanged(&images, exchanged)?;
            request.check(facts)?;
            let own = request.encoded(facts, components, watch)?;
            return Ok((request.start(facts, &own, beginning, images)?, own.shown));
        }
        if encodings.get().is_none() {
            let made = request.encoded(facts, components, watch)?;
            encodings.set(made).ok();
        }
        let Some(encodings) = encodings.get() else { bail!("what images begin with is gone") };
        Ok((request.start(facts, encodings, beginning, images)?, encodings.shown.clone()))
    }
}

/// What images begin with, encoded.
struct Encodings<'a> {
    init: Vec<Encoded<'a>>,
    shown: Option<Arc<ImageConditioning>>,
}

impl Img2Img {
    fn encoded(
        &self,
        facts: &ModelFacts,
        components: &mut dyn Components,
        watch: &mut dyn Watch,
    ) -> Result<Encodings<'_>> {
        let wrap = self.drawing.tiling;
        let init: Vec<Encoded> = self
            .init
            .iter()
            .map(|init| match init {
                InitImage::Latents(latents) => Ok(Encoded::Latents(latents)),
                InitImage::Picture(pixels) | InitImage::Stretched(pixels) => {
                    let posterior = encode(components, pixels, wrap, watch)?;
                    Ok(Encoded::Picture { pixels, posterior })
                }
            })
            .collect::<Result<_>>()?;
        let covered = Covered { masks: self.conditioning_mask.as_ref(), weight: self.inpainting_mask_weight };
        let sources: Vec<Source> = init.iter().map(Encoded::source).collect();
        let shown = ImageConditioning::of_pictures(facts, components, &sources, covered, wrap, watch)?;
        Ok(Encodings { init, shown: shown.map(Arc::new) })
    }

    /// What the loop of these images begins with.
    fn start(
        &self,
        facts: &ModelFacts,
        encodings: &Encodings<'_>,
        beginning: &Beginning,
        images: Range<usize>,
    ) -> Result<Start> {
        let (first, init) = (images.start, &encodings.init);
        let latents: Vec<Tensor> = images
            .map(|image| {
                let of = init.get(image % init.len().max(1));
                let of = of.ok_or_else(|| Error::Compute("an image without a beginning".to_owned()))?;
                let mut latents = of.latents(facts.family.latent_scale, || {
                    let noise = self.drawing.noise(image);
                    NoiseGenerator::new(noise.source, noise.seed ^ ENCODING)
                })?;
                let [rows, columns] = self.drawing.latents();
                if (latents.dim(2), latents.dim(3)) != (rows, columns) {
                    latents = resize_latents(&latents, rows, columns, LatentFilter::Bilinear)?;
                }
                self.with_content(latents, image)
            })
            .collect::<Result<_>>()?;
        let latents = Tensor::cat(&latents.iter().collect::<Vec<_>>(), 0)?;
        let mask = match &self.latent_mask {
            Some(mask) if mask.dim(0) > 1 => {
                Some(Arc::new(mask.narrow(0, first % mask.dim(0), latents.dim(0))?))
            }
            mask => mask.clone().map(Arc::new),
        };
        Ok(Start::Latents { latents, mask, soft: self.soft_inpainting, beginning: beginning.clone() })
    }

    /// The request of one batch alone, as somebody exchanges what its images begin with.
    fn exchanged(&self, images: &Range<usize>, all: Vec<Exchanged>) -> Result<Self> {
        if all.len() != images.len() {
            bail!("{} images are exchanged of a batch of {}", all.len(), images.len());
        }
        let own = |masks: &Option<Tensor>, image: usize| {
            let own = |masks: &Tensor| masks.narrow(0, image % masks.dim(0).max(1), 1);
            masks.as_ref().map(own).transpose()
        };
        let (mut init, mut latent_masks, mut conditioning_masks) = (vec![], vec![], vec![]);
        for (image, Exchanged { init: new, latent_mask, conditioning_mask }) in images.clone().zip(all) {
            let Some(old) = self.init.get(image % self.init.len().max(1)) else {
                bail!("image {image} has no beginning that could be exchanged")
            };
            init.push(match (new, old) {
                (None, old) => old.clone(),
                (Some(picture), InitImage::Stretched(_)) => InitImage::Stretched(picture),
                (Some(picture), _) => InitImage::Picture(picture),
            });
            latent_masks
                .push(latent_mask.map_or_else(|| own(&self.latent_mask, image), |mask| Ok(Some(mask)))?);
            let mask = conditioning_mask
                .map_or_else(|| own(&self.conditioning_mask, image), |mask| Ok(Some(mask)))?;
            conditioning_masks.push(mask);
        }
        let (latent_mask, conditioning_mask) = (together(latent_masks)?, together(conditioning_masks)?);
        Ok(Self { init, latent_mask, conditioning_mask, ..self.clone() })
    }
}

/// Masks of all images, `(images, rows, columns)`: 1 where an image has none. None if none has.
fn together(masks: Vec<Option<Tensor>>) -> Result<Option<Tensor>> {
    let Some(dims) = masks.iter().flatten().next().map(|mask| mask.dims().to_vec()) else { return Ok(None) };
    let masks: Vec<Tensor> =
        masks.into_iter().map(|mask| mask.unwrap_or_else(|| Tensor::full(1.0, dims.clone()))).collect();
    Tensor::cat(&masks.iter().collect::<Vec<_>>(), 0).map(Some)
}

/// What a picture became.
enum Encoded<'a> {
    Picture { pixels: &'a Tensor, posterior: Posterior },
    Latents(&'a Tensor),
}

impl Encoded<'_> {
    /// The same for what is shown of it.
    fn source(&self) -> Source<'_> {
        match self {
            Self::Picture { pixels, posterior } => Source::Picture { pixels, posterior },
            Self::Latents(latents) => Source::Latents(latents),
        }
    }

    /// One of the latents that it may be, in the model's scale.
    fn latents(&self, scale: f64, generator: impl FnOnce() -> NoiseGenerator) -> Result<Tensor> {
        match self {
            Self::Latents(latents) => Ok(Tensor::clone(latents)),
            Self::Picture { posterior, .. } => sampled(posterior, generator(), scale),
        }
    }
}

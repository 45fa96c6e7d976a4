//! What is to be drawn.

use std::sync::Arc;

use super::conditioning::Padding;
use super::decode::LatentDecoder;
use super::hires::Hires;
use super::image_texts::{ImageTexts, TextFacts, TextNeeds};
use super::previews::PreviewDecoder;
use super::regions::{self, RegionPrompt};
use super::restoration::FaceRestoration;
use super::sampling_options::SamplingOptions;
use super::texts::Texts;
use crate::model::ModelFacts;
use crate::nn::Wrap;
use crate::prompt::{Embeddings, Encoding, Reading, Timeline};
use crate::sampling::{ImageNoise, ModelSigmas, NoiseSource, Sampler, Schedule, Sigmas, Variation, levels};
use crate::{Error, Result};

/// A request to draw from text. Fields have A1111's meaning.
#[derive(Clone, Debug, PartialEq)]
pub struct Txt2Img {
    /// What to draw, in A1111's grammar, as a [`Wording`](crate::prompt::Wording) leaves it.
    pub prompt: Texts,
    /// What to steer away from.
    pub negative_prompt: Texts,
    /// Parts of each image that are told something else than `prompt`, at most 16.
    pub regions: Vec<RegionPrompt>,
    /// How prompts are read.
    pub reading: Reading,
    /// Embeddings that both prompts may name.
    pub embeddings: Arc<Embeddings>,
    /// Seed of the first image; image `i` of the whole request has `seed + i`, unless it has a variation.
    pub seed: u64,
    /// Of each image of the whole request its seed, and its variation's, if they are not counted up from the first.
    pub seeds: Option<Arc<[(u64, u64)]>>,
    /// Turns the noise of the seed towards another seed's: then all images have the same seed, and image `i` the variation
    /// `subseed + i`.
    pub variation: Option<Variation>,
    /// `(width, height)` in pixels: an image shows in its middle what its seed draws at this size.
    pub seed_resize_from: Option<(usize, usize)>,
    /// Sampler steps, 1 or more.
    pub steps: usize,
    /// Guidance scale, finite.
    pub cfg_scale: f64,
    /// Pixels, a multiple of 8.
    pub width: usize,
    /// Pixels, a multiple of 8.
    pub height: usize,
    /// The sampler.
    pub sampler: Sampler,
    /// The schedule of sigmas.
    pub schedule: Schedule,
    /// What else there is to say of sampling.
    pub sampling: SamplingOptions,
    /// Images of one pass.
    pub batch_size: usize,
    /// Passes.
    pub n_iter: usize,
    /// Which hidden state of the text encoder conditions: 1 the last, 2 the one before it.
    pub clip_skip: usize,
    /// Where noise comes from.
    pub rng: NoiseSource,
    /// Whether the shorter of both prompts is padded with empty chunks, A1111's option of that name. Off, they
    /// may differ in length, and the halves of guidance run one after the other then.
    pub pad_cond_uncond: bool,
    /// Whether, before that, what is steered away from is made as long as what is wanted: by its last token again and again, or
    /// by leaving some out. A1111's option of that name.
    pub pad_cond_uncond_v0: bool,
    /// What makes pictures of the latents.
    pub decoder: LatentDecoder,
    /// What makes previews.
    pub previews: PreviewDecoder,
    /// The share of the way, in timesteps of the model, after which another checkpoint goes on, which the [`Components`] lend;
    /// from 0 to 1. None does if `None`. With `hires` it is a share of the second pass, in which alone it goes on.
    pub refiner_switch_at: Option<f64>,
    /// A second pass at another size, over what this one draws.
    pub hires: Option<Hires>,
    /// Faces restored in the pictures of the last pass; none are if `None`.
    pub restoration: Option<FaceRestoration>,
    /// Where the picture goes on beyond its border with its other end, so that it can be laid side by side with itself.
    pub tiling: Wrap,
    /// Latents that go through the UNet at once: fewer take less memory. All of a batch with all branches of guidance if
    /// `None`. Never changes the picture.
    pub samples_at_once: Option<usize>,
    /// How deep this request lies within others, for those who take part.
    pub depth: u32,
}

/// What the protocol draws if nothing is said: 512×512 in 20 steps of Euler a, guided by 7.
impl Default for Txt2Img {
    fn default() -> Self {
        Self {
            prompt: "".into(),
            negative_prompt: "".into(),
            regions: vec![],
            reading: Reading::default(),
            embeddings: Arc::default(),
            seed: 0,
            seeds: None,
            variation: None,
            seed_resize_from: None,
            steps: 20,
            cfg_scale: 7.0,
            width: 512,
            height: 512,
            sampler: Sampler::default(),
            schedule: Schedule::Automatic,
            sampling: SamplingOptions::default(),
            batch_size: 1,
            n_iter: 1,
            clip_skip: 1,
            rng: NoiseSource::Nv,
            pad_cond_uncond: false,
            pad_cond_uncond_v0: false,
            decoder: LatentDecoder::Vae,
            previews: PreviewDecoder::Latents,
            refiner_switch_at: None,
            hires: None,
            restoration: None,
            tiling: Wrap::default(),
            samples_at_once: None,
            depth: 0,
        }
    }
}

impl Txt2Img {
    /// Most steps, images of a pass, and passes.
    const MOST: usize = 10_000;

    /// Refuses what the types allow and the pipeline cannot draw. The protocol has narrower limits of its own.
    pub fn check(&self, facts: &ModelFacts) -> Result<()> {
        let wrong = |text: String| Err(Error::Request(text));
        for (name, size) in [("width", self.width), ("height", self.height)] {
            if size == 0 || !size.is_multiple_of(8) || size > 1 << 14 {
                return wrong(format!("{name} is {size}; a multiple of 8 from 8 to 16384 is needed"));
            }
        }
        if !self.cfg_scale.is_finite() {
            return wrong(format!("cfg_scale is {}; a finite number is needed", self.cfg_scale));
        }
        // More than anyone needs, and few enough that products of them do not overflow.
        for (name, count) in [("steps", self.steps), ("batch_size", self.batch_size), ("n_iter", self.n_iter)]
        {
            if count == 0 || count > Self::MOST {
                return wrong(format!("{name} is {count}; 1 to {} are possible", Self::MOST));
            }
        }
        let images = self.batch_size * self.n_iter;
        for (name, texts) in [("prompt", &self.prompt), ("negative_prompt", &self.negative_prompt)] {
            if let Some(count) = texts.images().filter(|count| *count != images) {
                return wrong(format!(
                    "{name} is a list of {count}, and {images} pictures are to be drawn; give one text for each of them, \
                     or set batch_size and n_iter"
                ));
            }
        }
        regions::check(&self.regions, self.latents())?;
        self.check_noise()?;
        self.sampling.check()?;
        self.levels(facts)?;
        let layers = facts.text_layers;
        if self.clip_skip == 0 || self.clip_skip > layers {
            return wrong(format!("clip_skip is {}; this model allows 1 to {layers}", self.clip_skip));
        }
        self.check_hires(facts)
    }

    fn check_noise(&self) -> Result<()> {
        let wrong = |text: String| Err(Error::Request(text));
        if let Some((width, height)) = self.seed_resize_from
            && (width < 8 || height < 8 || width.max(height) > 1 << 14)
        {
            return wrong(format!("seed_resize_from is {width}x{height}; 8 to 16384 are possible"));
        }
        let Some(Variation { strength, .. }) = self.variation else { return Ok(()) };
        if !strength.is_finite() {
            return wrong(format!("subseed_strength is {strength}; a finite number is needed"));
        }
        let (_, height) = self.seed_resize_from.unwrap_or((self.width, self.height));
        if strength != 0.0 && height < 16 {
            return wrong(format!(
                "subseed_strength turns columns of latents, which {height} rows of pixels have none of; give a height of 16 or \
                 more"
            ));
        }
        Ok(())
    }

    /// What image number `index` of the whole request begins with.
    pub(super) fn noise(&self, index: usize) -> ImageNoise {
        let own = self.seeds.as_ref().and_then(|seeds| seeds.get(index)).copied();
        let index = index as u64;
        let variation = self.variation.filter(|variation| variation.strength != 0.0);
        if let Some((seed, subseed)) = own {
            let variation = variation.map(|variation| Variation { subseed, ..variation });
            return ImageNoise { source: self.rng, seed, variation, resized_from: self.seed_resize_from };
        }
        ImageNoise {
            source: self.rng,
            seed: if variation.is_some() { self.seed } else { self.seed.wrapping_add(index) },
            variation: variation
                .map(|variation| Variation { subseed: variation.subseed.wrapping_add(index), ..variation }),
            resized_from: self.seed_resize_from,
        }
    }

    /// What its prompts take.
    pub fn text_needs(&self) -> Result<TextNeeds> {
        let needs = self.texts().needs(self.batch_size, self.n_iter)?;
        let Some(second) = self.second_pass()? else { return Ok(needs) };
        let of_second = second.texts().needs(self.batch_size, self.n_iter)?;
        let says_the_same =
            self.told_apart() == 1 && self.texts().texts_of(0)? == second.texts().texts_of(0)?;
        Ok(if says_the_same { needs } else { needs.before(&of_second) })
    }

    /// `(width, height)` that no picture of any of its passes goes beyond.
    pub fn largest(&self) -> (usize, usize) {
        let (wide, high) = self.hires.as_ref().map_or((0, 0), |hires| hires.size.upscale_to);
        (self.width.max(wide), self.height.max(high))
    }

    /// Images that may be told something else than the first: all of them from that on, or it alone.
    pub fn told_apart(&self) -> usize {
        let of_second = self.hires.iter().flat_map(|hires| [&hires.prompt, &hires.negative_prompt]).flatten();
        let mut all = [&self.prompt, &self.negative_prompt].into_iter().chain(of_second);
        all.find_map(Texts::images).unwrap_or(1)
    }

    /// What the text encoder is given for an image at any step.
    pub fn texts_of(&self, image: usize) -> Result<Vec<String>> {
        let mut texts = self.texts().texts_of(image)?;
        if let Some(second) = self.second_pass()? {
            texts.extend(second.texts().texts_of(image)?);
        }
        Ok(texts)
    }

    /// What an image's text has to say of how its prompts were read.
    pub fn text_facts(&self, image: usize) -> Result<TextFacts> {
        let facts = self.texts().facts(image)?;
        let Some(second) = self.second_pass()? else { return Ok(facts) };
        Ok(facts.and(second.texts().facts(image)?))
    }

    /// Rows and columns of an image's latents.
    pub(super) fn latents(&self) -> [usize; 2] {
        [self.height / 8, self.width / 8]
    }

    pub(super) fn texts(&self) -> ImageTexts<'_> {
        let steps = self.sampler.foreseen_calls(self.steps);
        let is_old = self.reading.use_old_scheduling;
        ImageTexts {
            prompt: &self.prompt,
            negative_prompt: &self.negative_prompt,
            regions: &self.regions,
            latents: self.latents(),
            encoding: Encoding {
                embeddings: &self.embeddings,
                reading: &self.reading,
                clip_skip: self.clip_skip,
            },
            padding: Padding {
                pad_cond_uncond: self.pad_cond_uncond,
                pad_cond_uncond_v0: self.pad_cond_uncond_v0,
            },
            timeline: Timeline::new(steps, is_old),
            other_timeline: Timeline::new(steps, !is_old),
        }
    }

    /// The schedule as A1111 writes it: for "Automatic" the sampler's own, but it has no name for a sampler whose own is
    /// uniform and leaves "Automatic" then. One that has no effect on the sampler is not told.
    pub fn named_schedule(&self) -> Schedule {
        match (self.schedule, self.sampler.schedule(self.schedule)) {
            (_, None) | (Schedule::Automatic, Some(Schedule::Uniform)) => Schedule::Automatic,
            (_, Some(schedule)) => schedule,
        }
    }

    /// The model's noise levels, and those that are visited.
    pub(super) fn levels(&self, facts: &ModelFacts) -> Result<(ModelSigmas, Sigmas)> {
        let model = facts.sigmas(self.sampling.zero_terminal_snr);
        let levels = levels(&self.sampler, &model, self.schedule, self.steps, &self.sampling.sampler)?;
        Ok((model, levels))
    }
}

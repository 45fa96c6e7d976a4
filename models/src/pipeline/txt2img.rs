//! Text to image.

use candle_core::{Device, Tensor};

use super::denoiser::Denoiser;
use super::times::Times;
use super::{Hooks, Model, Progress, Stage};
use crate::image::{Infotext, RgbImage, tensor_to_image};
use crate::networks::unet::Context;
use crate::nn::Precision;
use crate::prompt::{Conditioning, encode, pad_alike};
use crate::sampling::{NoiseGenerator, NoiseSource, Sampler, Schedule, sample};
use crate::{Error, Result};

/// A request to draw from text. Fields have A1111's meaning.
#[derive(Clone, Debug, PartialEq)]
pub struct Txt2Img {
    /// What to draw, in A1111's grammar.
    pub prompt: String,
    /// What to steer away from.
    pub negative_prompt: String,
    /// Seed of the first image; image `i` of the whole request has `seed + i`.
    pub seed: u64,
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
    /// Bytes that activations may take: fewer latents go through the UNet at once the less there is, and a
    /// request that does not fit one at a time fails. `None` does not check. Never changes the picture.
    pub memory_limit: Option<u64>,
}

/// One finished picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// The pixels.
    pub image: RgbImage,
    /// The seed that draws it alone.
    pub seed: u64,
    /// A1111's `parameters` text without the model's name and hash, which the caller knows.
    pub infotext: Infotext,
}

/// Draws `n_iter * batch_size` images. The result depends on the request and the model only.
pub fn txt2img(model: &Model, request: &Txt2Img, hooks: &mut dyn Hooks) -> Result<Vec<Output>> {
    request.check(model)?;
    let _memory = FreedAtTheEnd;
    let samples_at_once = request.samples_at_once(model)?;
    let sigmas = model.sigmas.schedule(request.sampler, request.schedule, request.steps)?;
    let steps = sigmas.levels.len() - 1;
    let mut outputs = vec![];
    let mut contexts: Option<Contexts> = None;
    let mut times = Times::new(
        sigmas.levels[..steps].iter().map(|level| model.sigmas.sigma_to_t(f64::from(*level))).collect(),
    );
    for pass in 0..request.n_iter {
        let first = pass * request.batch_size;
        let seeds: Vec<u64> =
            (0..request.batch_size).map(|i| request.seed.wrapping_add((first + i) as u64)).collect();
        hooks.pass_begin(pass, &seeds)?;
        if hooks.cancelled() {
            return Err(Error::Cancelled);
        }
        let prompts = conditioning(model, request, hooks)?;
        // Hooks may change it from pass to pass; mostly they do not.
        let contexts = match contexts.take() {
            Some(before) if alike(&before.of, &prompts)? => contexts.insert(before),
            _ => contexts.insert(Contexts::new(model, prompts)?),
        };
        let progress =
            Progress { stage: Stage::Conditioning, step: pass * steps, steps: request.n_iter * steps };
        hooks.progress(progress);
        let shape = (model.unet.config().in_channels, request.height / 8, request.width / 8);
        let mut generators: Vec<NoiseGenerator> =
            seeds.iter().map(|seed| NoiseGenerator::new(request.rng, *seed)).collect();
        let mut noise = draw(&mut generators, shape)?;
        hooks.noise_init(&mut noise)?;
        let mut denoiser = Denoiser {
            model,
            hooks: &mut *hooks,
            cond: &contexts.cond,
            uncond: &contexts.uncond,
            times: &mut times,
            cfg_scale: request.cfg_scale,
            samples_at_once,
            noise: Box::new(|| draw(&mut generators, shape)),
            progress,
            step: 0,
        };
        let mut latents = sample(request.sampler, &noise, &sigmas, &mut denoiser)?;
        drop(denoiser);
        hooks.latent_final(&mut latents)?;
        let mut images = vec![];
        for index in 0..request.batch_size {
            if hooks.cancelled() {
                return Err(Error::Cancelled);
            }
            let latent = latents.narrow(0, index, 1)?.affine(1.0 / Model::LATENT_SCALE, 0.0)?;
            let mut image = tensor_to_image(&model.vae.decode(&latent)?)?;
            hooks.image_post(first + index, &mut image)?;
            hooks.progress(Progress { stage: Stage::Decoding, step: (pass + 1) * steps, ..progress });
            images.push(image);
        }
        hooks.batch_post(&mut images)?;
        outputs.extend(images.into_iter().zip(seeds).map(|(image, seed)| {
            let infotext = request.infotext(seed, &image, model.precision());
            Output { image, seed, infotext }
        }));
    }
    Ok(outputs)
}

/// Gives memory that layers kept for their next results back to the system, however the request ends.
struct FreedAtTheEnd;

impl Drop for FreedAtTheEnd {
    fn drop(&mut self) {
        latentd_kernels::release_buffers();
    }
}

/// What the UNet's cross-attentions look up, positive and negative.
struct Contexts {
    of: (Conditioning, Conditioning),
    cond: Context,
    uncond: Context,
}

impl Contexts {
    fn new(model: &Model, of: (Conditioning, Conditioning)) -> Result<Self> {
        Ok(Self { cond: model.unet.context(&of.0)?, uncond: model.unet.context(&of.1)?, of })
    }
}

fn alike(a: &(Conditioning, Conditioning), b: &(Conditioning, Conditioning)) -> Result<bool> {
    let same = |a: &Tensor, b: &Tensor| -> Result<bool> {
        let values = |x: &Tensor| x.flatten_all()?.to_vec1::<f32>();
        Ok(a.dims() == b.dims() && values(a)? == values(b)?)
    };
    Ok(same(&a.0, &b.0)? && same(&a.1, &b.1)?)
}

/// Conditioning `(1, tokens, width)`, positive and negative.
fn conditioning(
    model: &Model,
    request: &Txt2Img,
    hooks: &mut dyn Hooks,
) -> Result<(Conditioning, Conditioning)> {
    let (mut prompt, mut negative) = (request.prompt.clone(), request.negative_prompt.clone());
    hooks.prompt_rewrite(&mut prompt, &mut negative)?;
    let clip_skip = request.clip_skip;
    let encode = |prompt: &str| {
        let encode = || encode(&model.clip, prompt, clip_skip, &|| hooks.cancelled());
        model.conditioning.get(prompt, clip_skip, encode)
    };
    let mut cond = encode(&prompt)?;
    let mut uncond = encode(&negative)?;
    if request.pad_cond_uncond {
        pad_alike(&mut cond, &mut uncond, || encode(""))?;
    }
    hooks.conditioning(&mut cond, &mut uncond)?;
    Ok((cond, uncond))
}

/// Each image's next noise from its own generator, stacked.
fn draw(
    generators: &mut [NoiseGenerator],
    (channels, height, width): (usize, usize, usize),
) -> Result<Tensor> {
    let values =
        generators.iter_mut().flat_map(|generator| generator.normal(channels * height * width)).collect();
    Ok(Tensor::from_vec(values, (generators.len(), channels, height, width), &Device::Cpu)?)
}

impl Txt2Img {
    /// Most steps, images of a pass, and passes.
    const MOST: usize = 10_000;

    /// What the types do not rule out. Limits of the wire are its own; these are the pipeline's.
    fn check(&self, model: &Model) -> Result<()> {
        let wrong = |text: String| Err(Error::Request(text));
        for (name, size) in [("width", self.width), ("height", self.height)] {
            if size == 0 || !size.is_multiple_of(8) || size > 1 << 14 {
                return wrong(format!("{name} is {size}; a multiple of 8 from 8 to 16384 is needed"));
            }
        }
        if !self.cfg_scale.is_finite() {
            return wrong(format!("cfg_scale is {}; a finite number is needed", self.cfg_scale));
        }
        // Beyond any use, so that what is reckoned with them stays in range.
        for (name, count) in [("steps", self.steps), ("batch_size", self.batch_size), ("n_iter", self.n_iter)]
        {
            if count == 0 || count > Self::MOST {
                return wrong(format!("{name} is {count}; 1 to {} are possible", Self::MOST));
            }
        }
        let layers = model.clip.config().layers;
        if self.clip_skip == 0 || self.clip_skip > layers {
            return wrong(format!("clip_skip is {}; this model allows 1 to {layers}", self.clip_skip));
        }
        Ok(())
    }

    /// How many latents may go through the UNet at once: all, both halves of guidance, if memory allows.
    fn samples_at_once(&self, model: &Model) -> Result<usize> {
        let all = self.batch_size * 2;
        let Some(allowed_bytes) = self.memory_limit else {
            return Ok(all);
        };
        let needed = |samples| model.activation_bytes(self.width, self.height, samples);
        let fitting = (1..=all).rev().find(|samples| needed(*samples) <= allowed_bytes);
        fitting.ok_or_else(|| Error::Memory { needed_bytes: needed(1), allowed_bytes })
    }

    fn infotext(&self, seed: u64, image: &RgbImage, precision: Precision) -> Infotext {
        let mut text = Infotext {
            prompt: self.prompt.clone(),
            negative_prompt: self.negative_prompt.clone(),
            fields: vec![],
        };
        text.push("Steps", self.steps);
        text.push("Sampler", self.sampler);
        text.push("Schedule type", self.schedule);
        text.push("CFG scale", self.cfg_scale);
        text.push("Seed", seed);
        text.push("Size", format!("{}x{}", image.width, image.height));
        if self.clip_skip > 1 {
            text.push("Clip skip", self.clip_skip);
        }
        if self.pad_cond_uncond {
            text.push("Pad conds", "True");
        }
        text.push("RNG", self.rng.name().to_uppercase());
        if precision != Precision::F32 {
            text.push("Precision", precision.name());
        }
        text
    }
}

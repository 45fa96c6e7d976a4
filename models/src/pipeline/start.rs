//! What the sampler's loop begins with.

use std::sync::Arc;

use super::guidance::masked;
use super::soft_inpainting::SoftInpainting;
use crate::error::{Result, bail};
use crate::image::Picture;
use crate::nn::Device;
use crate::sampling::{Beginning, Sigmas};
use crate::tensor::Tensor;

/// What the loop begins with.
#[derive(Clone, Debug, Default)]
pub enum Start {
    /// Noise alone.
    #[default]
    Noise,
    /// Latents, with noise of a level added.
    Latents {
        /// `(batch, channels, height, width)` in the model's scale: one per image, or one for all.
        latents: Tensor,
        /// Where to draw, `(batch, height, width)`, one per image or one for all: 1 for anew, 0 for what `latents` have there to
        /// the end. Everywhere if `None`.
        mask: Option<Arc<Tensor>>,
        /// How the two are blended where the mask is grey, if not evenly.
        soft: Option<SoftInpainting>,
        /// The noise that is added, and the levels that remain.
        beginning: Beginning,
    },
}

impl Start {
    /// The levels that are visited, of those from noise alone, and how the state relates to what [`Self::state`] gives.
    pub(super) fn levels(&self, sigmas: &Sigmas) -> Sigmas {
        match self {
            Self::Noise => sigmas.clone(),
            Self::Latents { beginning, .. } => beginning.sigmas.clone(),
        }
    }

    /// What, times the initial scale, is the state to begin with: unit noise, or latents + σ · noise.
    pub(super) fn state(&self, noise: Tensor) -> Result<Tensor> {
        let Self::Latents { latents, beginning, .. } = self else { return Ok(noise) };
        let sigma = beginning.noise as f32;
        each(&noise, latents, |noise, latents| noise.zip(latents, |noise, x| x + noise * sigma))
    }

    /// What it is for one of its images.
    pub(super) fn of_image(&self, image: usize) -> Result<Self> {
        let Self::Latents { latents, mask, soft, beginning } = self else { return Ok(Self::Noise) };
        let own = |all: &Tensor| all.narrow(0, image % all.dim(0).max(1), 1);
        let mask = mask.as_deref().map(own).transpose()?.map(Arc::new);
        Ok(Self::Latents { latents: own(latents)?, mask, soft: *soft, beginning: beginning.clone() })
    }

    /// What is known of the picture beside what was predicted of it at a level, σ: outside of the mask that of `latents`.
    pub(super) fn keep(&self, predicted: Tensor, level: f64) -> Result<Tensor> {
        Ok(self.kept(&predicted, 1.0, level)?.unwrap_or(predicted))
    }

    /// The same of what sampling ended with. Soft inpainting leaves that as it is.
    pub(super) fn keep_at_last(&self, sampled: Tensor) -> Result<Tensor> {
        match self {
            Self::Latents { soft: Some(_), .. } => Ok(sampled),
            _ => self.keep(sampled, 0.0),
        }
    }

    /// What the model is shown of a state whose noise has the standard deviation `sigma`, as A1111 does with samplers that go by
    /// timesteps, instead of [`keep`](Self::keep): outside of the mask the latents, without noise, as if they were the state
    /// of constant variance. `None` if it is shown the state.
    pub(super) fn shown(&self, state: &Tensor, sigma: f64, timestep: f32) -> Result<Option<Tensor>> {
        self.kept(state, (1.0 + sigma * sigma).sqrt(), f64::from(timestep))
    }

    /// Outside of the mask the latents times `scale`; `None` if there is no mask.
    fn kept(&self, state: &Tensor, scale: f64, level: f64) -> Result<Option<Tensor>> {
        let Self::Latents { latents, mask: Some(mask), soft, .. } = self else { return Ok(None) };
        let masks = each_mask(mask, state.dim(0))?;
        let mut masks = masks.iter();
        let blended = each(state, latents, |state, latents| {
            let Some(mask) = masks.next() else { bail!("a state without a mask") };
            if let Some(soft) = soft {
                let state = state.scaled(1.0 / scale);
                return Ok(soft.blend(latents, &state, &soft.mask_at(mask, level))?.scaled(scale));
            }
            let outside = mask.map(|value| (1.0 - value) * scale as f32);
            masked(state.clone(), mask)?.plus(&masked(latents.clone(), &outside)?)
        });
        blended.map(Some)
    }

    /// With soft inpainting, how much of each image that ended with these latents is seen. Computed on the device's threads.
    pub(super) fn seen(&self, sampled: &Tensor, device: &Device) -> Result<Vec<Picture>> {
        let Self::Latents { latents, mask: Some(mask), soft: Some(soft), .. } = self else {
            return Ok(vec![]);
        };
        let masks = each_mask(mask, sampled.dim(0))?;
        let seen = masks.iter().enumerate().map(|(image, mask)| {
            let of = |all: &Tensor| all.narrow(0, image % all.dim(0).max(1), 1);
            soft.seen(&of(latents)?, &of(sampled)?, mask)
        });
        device.run(|| seen.collect())
    }
}

/// Each image's mask, of those of all or the one for all.
fn each_mask(mask: &Tensor, images: usize) -> Result<Vec<Tensor>> {
    (0..images).map(|image| mask.get(image % mask.dim(0).max(1))).collect()
}

/// A function of each image of a batch and the latents that it begins with.
fn each(
    batch: &Tensor,
    latents: &Tensor,
    mut f: impl FnMut(&Tensor, &Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let images = batch.dim(0);
    if latents.dims().get(1..) != batch.dims().get(1..) || (latents.dim(0) != 1 && latents.dim(0) != images) {
        bail!("latents {:?} for a batch {:?}", latents.dims(), batch.dims());
    }
    let made: Vec<Tensor> = (0..images)
        .map(|index| f(&batch.narrow(0, index, 1)?, &latents.narrow(0, index % latents.dim(0), 1)?))
        .collect::<Result<_>>()?;
    Tensor::cat(&made.iter().collect::<Vec<_>>(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::{
        Denoise, Denoised, ModelSigmas, PartOfSteps, Sampler, SamplerInfo, SamplerOptions, Schedule, levels,
        levels_from_latents, sample,
    };

    /// A model that knows the picture.
    struct Knows<'a>(&'a Start, Tensor);

    impl Denoise for Knows<'_> {
        fn predict(&mut self, _x: &Tensor, _sigma: f64, _timestep: Option<f32>) -> Result<Denoised> {
            let guided = self.0.keep(self.1.clone(), 1.0)?;
            Ok(Denoised { uncond: guided.clone(), guided })
        }

        fn noise(&mut self, _from: f64, _to: f64) -> Result<Tensor> {
            Ok(self.1.map(|_| 0.5))
        }

        fn advance(&mut self, _steps: usize, _x: &Tensor, _denoised: &Tensor) -> Result<()> {
            Ok(())
        }
    }

    fn numbers(seed: f32, dims: [usize; 4]) -> Tensor {
        let count = dims.iter().product();
        let numbers = (0..count).map(|i: usize| ((i as f32 * 0.37 + seed) * 1.7).sin()).collect();
        Tensor::new(numbers, dims).expect("fits")
    }

    fn beginning(sampler: &SamplerInfo, kept: usize) -> Beginning {
        let (model, options) = (ModelSigmas::default(), SamplerOptions::default());
        let part = PartOfSteps { steps: 10, kept };
        levels_from_latents(sampler, &model, Schedule::Automatic, part, &options).expect("levels")
    }

    fn latents(mask: Option<Tensor>, beginning: Beginning) -> Start {
        Start::Latents {
            latents: numbers(1.0, [1, 4, 3, 5]),
            mask: mask.map(Arc::new),
            soft: None,
            beginning,
        }
    }

    #[test]
    fn latents_begin_with_noise_of_their_level_whatever_the_sampler() {
        let (noise, picture) = (numbers(2.0, [2, 4, 3, 5]), numbers(3.0, [2, 4, 3, 5]));
        let (model, options) = (ModelSigmas::default(), SamplerOptions::default());
        for sampler in Sampler::all() {
            let all = levels(&sampler, &model, Schedule::Automatic, 10, &options).expect("levels");
            let start = latents(None, beginning(&sampler, 5));
            let sigmas = start.levels(&all);
            let state = start.state(noise.clone()).expect("a state");
            let Start::Latents { beginning, .. } = &start else { panic!("a start from latents") };
            for image in 0..2 {
                let (state, noise) = (state.get(image).expect("image"), noise.get(image).expect("image"));
                let first = numbers(1.0, [1, 4, 3, 5]).get(0).expect("image");
                let level = beginning.noise as f32;
                let wanted = first.zip(&noise, |x, noise| x + noise * level).expect("fits");
                assert_eq!(state, wanted, "{sampler}");
            }
            let found =
                sample(&sampler, &state, &sigmas, &model, &options, &mut Knows(&start, picture.clone()))
                    .expect("samples");
            // TCD ends at the model's lowest level, whatever the last one is.
            let last = if sampler.name == "TCD" { model.min() } else { 0.0 };
            let left = sigmas.levels.last().copied().unwrap_or_default().max(last) * 3.0;
            let off = |(a, b): (&f32, &f32)| (a - b).abs() > left + 1e-4;
            assert!(!found.values().iter().zip(picture.values()).any(off), "{sampler}");
        }
    }

    #[test]
    fn outside_of_the_mask_all_stays() {
        let mut mask = Tensor::full(0.0, [1, 3, 5]);
        mask.values_mut()[7] = 1.0;
        let begin = beginning(&Sampler::from_name("Euler").expect("a sampler"), 9);
        let kept = latents(Some(mask), begin.clone()).keep(numbers(3.0, [1, 4, 3, 5]), 1.0).expect("fits");
        let (before, drawn) = (numbers(1.0, [1, 4, 3, 5]), numbers(3.0, [1, 4, 3, 5]));
        for (index, value) in kept.values().iter().enumerate() {
            let wanted = if index % 15 == 7 { &drawn } else { &before };
            assert_eq!(*value, wanted.values()[index], "{index}");
        }
        assert!(
            latents(Some(Tensor::full(0.0, [1, 5, 3])), begin.clone())
                .keep(numbers(3.0, [1, 4, 3, 5]), 1.0)
                .is_err()
        );
        assert!(latents(None, begin).state(numbers(2.0, [1, 4, 5, 3])).is_err());
    }
}

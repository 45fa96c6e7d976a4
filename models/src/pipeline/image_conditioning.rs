//! What a checkpoint that sees a picture is shown of it: channels behind those of the noisy latents, as A1111 has them in
//! `modules/processing.py`.

use std::ops::Range;

use super::components::Components;
use super::decode::decode_tensor;
use super::encode::{encode, sampled};
use super::watch::Watch;
use crate::error::{Error, Result, bail};
use crate::model::{ModelFacts, UNetInput};
use crate::networks::vae::Posterior;
use crate::nn::Wrap;
use crate::sampling::{ImageNoise, NoiseGenerator};
use crate::tensor::Tensor;

/// What noise of what is shown is drawn from beside the seed, whose own draws are those of the picture. A1111 draws it from a
/// generator without a seed.
const SHOWN: u64 = 0x7365_656e_2d69_6d67;

/// Pixels of a latent's side.
const SCALE: usize = 8;

/// What a request's images are shown, one after the other and from the first again.
pub(super) struct ImageConditioning {
    all: Vec<Shown>,
    /// The family's scale of latents.
    scale: f64,
}

enum Shown {
    /// To an inpainting checkpoint: a mask `(1, 1, rows, columns)` of latents, and where the VAE puts the picture beneath it.
    Beneath { mask: Tensor, posterior: Posterior },
    /// To one that edits: latents `(1, channels, rows, columns)` in the VAE's scale.
    Picture(Tensor),
}

/// A picture that something is drawn from.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// `(1, 3, height, width)` in [−1, 1], and where the VAE puts it.
    Picture { pixels: &'a Tensor, posterior: &'a Posterior },
    /// Latents `(1, channels, rows, columns)` in the model's scale.
    Latents(&'a Tensor),
}

/// How much of a picture an inpainting checkpoint is shown.
#[derive(Clone, Copy)]
pub(super) struct Covered<'a> {
    /// Where to draw anew, `(images, height, width)` of pixels from 0 to 1; everywhere if `None`.
    pub masks: Option<&'a Tensor>,
    /// How much of the picture there is gray to the checkpoint, from 0 to 1.
    pub weight: f64,
}

impl ImageConditioning {
    /// Where there is no picture: to an inpainting checkpoint one that is gray and covered all over, to one that edits the
    /// zeros by which it was taught to do without. (A1111 fails with the latter.) `None` for a checkpoint that sees none.
    pub(super) fn of_nothing(
        facts: &ModelFacts,
        components: &mut dyn Components,
        [rows, columns]: [usize; 2],
        wrap: Wrap,
        watch: &mut dyn Watch,
    ) -> Result<Option<Self>> {
        let shown = match facts.unet_input {
            UNetInput::Latents => return Ok(None),
            UNetInput::Inpainting => {
                let gray = Tensor::full(0.0, [1, 3, rows * SCALE, columns * SCALE]);
                let mask = Tensor::full(1.0, [1, 1, rows, columns]);
                Shown::Beneath { mask, posterior: encode(components, &gray, wrap, watch)? }
            }
            UNetInput::Edit => {
                Shown::Picture(Tensor::full(0.0, [1, facts.family.latent_channels, rows, columns]))
            }
        };
        Ok(Some(Self { all: vec![shown], scale: facts.family.latent_scale }))
    }

    /// Of one picture or mask for all images, one for each of a batch, or one for each. `None` for a checkpoint that sees none.
    pub(super) fn of_pictures(
        facts: &ModelFacts,
        components: &mut dyn Components,
        sources: &[Source],
        covered: Covered,
        wrap: Wrap,
        watch: &mut dyn Watch,
    ) -> Result<Option<Self>> {
        let scale = facts.family.latent_scale;
        let mut all = vec![];
        match facts.unet_input {
            UNetInput::Latents => return Ok(None),
            UNetInput::Edit => all.extend(sources.iter().map(|source| match source {
                Source::Picture { posterior, .. } => Shown::Picture(posterior.mean.clone()),
                Source::Latents(latents) => Shown::Picture(latents.scaled(1.0 / scale)),
            })),
            UNetInput::Inpainting => {
                let count = sources.len().max(covered.masks.map_or(1, |masks| masks.dim(0)));
                for (image, source) in sources.iter().cycle().take(count).enumerate() {
                    let mask = covered.mask(image)?;
                    let shown = match source {
                        Source::Picture { pixels, .. } => {
                            covered.shown(components, pixels, mask, wrap, watch)?
                        }
                        Source::Latents(latents) => {
                            let pixels = decode_tensor(components, latents, scale, wrap, watch)?;
                            covered.shown(components, &pixels, mask, wrap, watch)?
                        }
                    };
                    all.push(shown);
                }
            }
        }
        Ok(Some(Self { all, scale }))
    }

    /// What these images are shown, with noise of each image's own.
    pub(super) fn channels(
        &self,
        images: Range<usize>,
        noise: impl Fn(usize) -> ImageNoise,
    ) -> Result<Channels> {
        let of_image = |image: usize| match self.all.get(image % self.all.len().max(1)) {
            Some(Shown::Picture(latents)) => Ok(latents.clone()),
            Some(Shown::Beneath { mask, posterior }) => {
                let ImageNoise { source, seed, .. } = noise(image);
                let generator = NoiseGenerator::new(source, seed ^ SHOWN);
                Tensor::cat(&[mask, &sampled(posterior, generator, self.scale)?], 1)
            }
            None => bail!("image {image} is shown nothing, and its checkpoint sees a picture"),
        };
        images.map(of_image).collect::<Result<_>>().map(Channels)
    }
}

impl Covered<'_> {
    /// An image's mask, `(height, width)`.
    fn mask(self, image: usize) -> Result<Option<Tensor>> {
        self.masks.map(|masks| masks.get(image % masks.dim(0).max(1))).transpose()
    }

    fn shown(
        self,
        components: &mut dyn Components,
        pixels: &Tensor,
        mask: Option<Tensor>,
        wrap: Wrap,
        watch: &mut dyn Watch,
    ) -> Result<Shown> {
        let (_, _, height, width) = pixels.dims4()?;
        let mask = mask.unwrap_or_else(|| Tensor::full(1.0, [height, width]));
        let beneath = self.beneath(pixels, &mask)?;
        let posterior = encode(components, &beneath, wrap, watch)?;
        Ok(Shown::Beneath { mask: of_latents(&mask)?, posterior })
    }

    /// The picture, gray by the weight where the mask is.
    fn beneath(self, pixels: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let (_, _, height, width) = pixels.dims4()?;
        if mask.dims() != [height, width] {
            bail!("a mask {:?} for a picture {:?}", mask.dims(), pixels.dims());
        }
        let weight = self.weight as f32;
        let mut beneath = pixels.clone();
        for plane in beneath.values_mut().chunks_exact_mut((height * width).max(1)) {
            for (pixel, mask) in plane.iter_mut().zip(mask.values()) {
                let covered = *pixel * (1.0 - mask);
                // From the nearer end, as `torch.lerp` does it, so that weight 1 leaves nothing.
                *pixel = if weight < 0.5 {
                    *pixel + weight * (covered - *pixel)
                } else {
                    covered - (covered - *pixel) * (1.0 - weight)
                };
            }
        }
        Ok(beneath)
    }
}

/// What each image of a pass is shown, `(1, channels, rows, columns)`.
pub(super) struct Channels(Vec<Tensor>);

impl Channels {
    /// Noisy latents of the pass's image number `image`, or of a part of it, with what it is shown behind them; zeros if that
    /// is hidden.
    pub(super) fn behind(
        &self,
        latents: &Tensor,
        image: usize,
        is_hidden: bool,
        part: Option<(Range<usize>, Range<usize>)>,
    ) -> Result<Tensor> {
        let Some(shown) = self.0.get(image) else { bail!("image {image} is shown nothing") };
        let shown = match part {
            Some((rows, columns)) => {
                &shown.narrow(2, rows.start, rows.len())?.narrow(3, columns.start, columns.len())?
            }
            None => shown,
        };
        if is_hidden {
            return Tensor::cat(&[latents, &Tensor::full(0.0, shown.dims())], 1);
        }
        Tensor::cat(&[latents, shown], 1)
    }
}

/// A mask `(height, width)` of pixels → `(1, 1, rows, columns)` of latents: each takes its first pixel's, which is what torch calls
/// nearest.
fn of_latents(mask: &Tensor) -> Result<Tensor> {
    let [height, width] = [mask.dim(0), mask.dim(1)];
    let rows = mask.values().chunks_exact(width.max(1)).step_by(SCALE);
    let values: Vec<f32> = rows.flat_map(|row| row.iter().step_by(SCALE).copied()).collect();
    Tensor::new(values, [1, 1, height.div_ceil(SCALE), width.div_ceil(SCALE)])
}

/// Refuses a refiner that sees what the request's own checkpoint is not shown.
pub(super) fn check_refiner(own: &ModelFacts, refiner: &ModelFacts) -> Result<()> {
    if [UNetInput::Latents, own.unet_input].contains(&refiner.unet_input) {
        return Ok(());
    }
    let (refiner, own) = (refiner.unet_input.title(), own.unet_input.title());
    Err(Error::Request(format!(
        "the refiner is {refiner} and cannot go on where {own} ends; refine with a plain checkpoint, or begin with {refiner}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latent_takes_its_first_pixel_of_the_mask() {
        let mask = Tensor::new((0..16 * 24).map(|place| place as f32).collect(), [16, 24]).expect("fits");
        let found = of_latents(&mask).expect("made");
        assert_eq!(
            found,
            Tensor::new(vec![0.0, 8.0, 16.0, 192.0, 200.0, 208.0], [1, 1, 2, 3]).expect("fits")
        );
    }

    #[test]
    fn what_is_masked_is_gray_by_the_weight() {
        let pixels = Tensor::new(vec![0.8, 0.3, -0.7], [1, 3, 1, 1]).expect("fits");
        for (mask, weight, left) in [(1.0, 1.0, 0.0), (1.0, 0.25, 0.75), (0.5, 1.0, 0.5), (0.0, 1.0, 1.0)] {
            let mask = Tensor::full(mask, [1, 1]);
            let beneath = Covered { masks: None, weight }.beneath(&pixels, &mask).expect("made");
            for (found, pixel) in beneath.values().iter().zip(pixels.values()) {
                assert!(
                    (found - pixel * left).abs() < 1e-6,
                    "{found} of {pixel}, mask {mask:?}, weight {weight}"
                );
            }
        }
        let covered = Covered { masks: None, weight: 1.0 };
        assert!(covered.beneath(&pixels, &Tensor::full(1.0, [2, 1])).is_err());
    }

    #[test]
    fn what_is_hidden_is_zeros() {
        let channels = Channels(vec![Tensor::full(2.0, [1, 1, 1, 2])]);
        let latents = Tensor::full(1.0, [1, 1, 1, 2]);
        let values = |hidden| channels.behind(&latents, 0, hidden, None).expect("made").values().to_vec();
        assert_eq!((values(false), values(true)), (vec![1.0, 1.0, 2.0, 2.0], vec![1.0, 1.0, 0.0, 0.0]));
        assert!(channels.behind(&latents, 1, false, None).is_err());
    }
}

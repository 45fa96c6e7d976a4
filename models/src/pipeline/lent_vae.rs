//! The VAE, for those who take part where no other network is at work.

use std::cell::RefCell;

use super::components::Components;
use super::decode::{DecodePlan, decode};
use super::encode::{ENCODING, encode, sampled};
use super::stages::ImageCoding;
use super::watch::Watch;
use crate::image::{Picture, RgbImage, picture_to_tensor};
use crate::sampling::{NoiseGenerator, NoiseSource};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// The VAE of a pass.
pub(super) struct LentVae<'a> {
    pub components: RefCell<&'a mut dyn Components>,
    pub watch: RefCell<&'a mut dyn Watch>,
    pub plan: DecodePlan,
    pub channels: usize,
    /// Pixels of one of the pass's pictures: memory was planned for these.
    pub most: usize,
    pub rng: NoiseSource,
}

impl LentVae<'_> {
    fn check(&self, width: usize, height: usize) -> Result<()> {
        if width == 0 || height == 0 || !width.is_multiple_of(8) || !height.is_multiple_of(8) {
            let text = format!("a picture of {width} × {height} pixels; the VAE takes whole eighths");
            return Err(Error::Request(text));
        }
        if width.saturating_mul(height) > self.most {
            let text = format!(
                "a picture of {width} × {height} pixels; memory is there for the {} of one of the pass's",
                self.most
            );
            return Err(Error::Request(text));
        }
        Ok(())
    }
}

fn again() -> Error {
    Error::Stage("the VAE is at work".to_owned())
}

impl ImageCoding for LentVae<'_> {
    fn encode(&self, image: RgbImage, seed: u64) -> Result<Tensor> {
        self.check(image.width, image.height)?;
        let picture = picture_to_tensor(&Picture::from(image))?;
        let mut components = self.components.try_borrow_mut().map_err(|_| again())?;
        let mut watch = self.watch.try_borrow_mut().map_err(|_| again())?;
        let posterior = encode(&mut **components, &picture, self.plan.wrap, &mut **watch)?;
        sampled(&posterior, NoiseGenerator::new(self.rng, seed ^ ENCODING), self.plan.scale)
    }

    fn decode(&self, latents: &Tensor) -> Result<RgbImage> {
        let dims = latents.dims();
        let [1, channels, rows, columns] = *dims else {
            return Err(Error::Request(format!("latents {dims:?}; (1, {}, h, w) is needed", self.channels)));
        };
        if channels != self.channels {
            let text = format!("latents {dims:?}; this model's have {} channels", self.channels);
            return Err(Error::Request(text));
        }
        self.check(columns.saturating_mul(8), rows.saturating_mul(8))?;
        let mut components = self.components.try_borrow_mut().map_err(|_| again())?;
        let mut watch = self.watch.try_borrow_mut().map_err(|_| again())?;
        let mut made = None;
        decode(&mut **components, latents, &self.plan, &mut **watch, |_, image| made = Some(image))?;
        made.ok_or_else(|| Error::Compute("no picture of latents".to_owned()))
    }

    fn rest(&self) {
        // Whoever is at work needs it.
        if let Ok(mut components) = self.components.try_borrow_mut() {
            components.rest();
        }
    }
}

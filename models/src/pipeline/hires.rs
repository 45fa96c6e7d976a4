//! Hires fix: what A1111 calls a second pass at a larger size, over what the first one drew.

use std::fmt;
use std::sync::Arc;

use super::texts::Texts;
use crate::image::{Filter, LatentFilter, Upscaler};
use crate::sampling::{
    Beginning, ModelSigmas, PartOfSteps, Sampler, SamplerOptions, Schedule, Sigmas, levels,
    levels_from_latents,
};
use crate::{Error, Result};

/// A second pass at another size. Fields have A1111's meaning.
#[derive(Clone, Debug, PartialEq)]
pub struct Hires {
    /// Where to go.
    pub size: HiresSize,
    /// Steps of the second pass, whatever the strength; as many as the first has if 0.
    pub steps: usize,
    /// How far from what was drawn to go, from 0, not at all, to 1.
    pub denoising_strength: f64,
    /// What makes it larger.
    pub upscaler: HiresUpscaler,
    /// What to draw then; the same if `None`.
    pub prompt: Option<Texts>,
    /// What to steer away from then; the same if `None`.
    pub negative_prompt: Option<Texts>,
    /// The sampler; the same if `None`.
    pub sampler: Option<Sampler>,
    /// The schedule; the same if `None`.
    pub schedule: Option<Schedule>,
    /// The guidance scale; the same if `None`. Forge's `hr_cfg`.
    pub cfg_scale: Option<f64>,
    /// How much noise is added beside that of the first level: A1111's `img2img_extra_noise`.
    pub extra_noise: f64,
    /// Whether the pictures of the first pass are among those that come out, before those of the second.
    pub keeps_first: bool,
}

impl Hires {
    /// What A1111 does if nothing else is said.
    pub fn to(size: HiresSize) -> Self {
        Self {
            size,
            steps: 0,
            denoising_strength: 0.75,
            upscaler: HiresUpscaler::default(),
            prompt: None,
            negative_prompt: None,
            sampler: None,
            schedule: None,
            cfg_scale: None,
            extra_noise: 0.0,
            keeps_first: false,
        }
    }

    /// Refuses what cannot be drawn.
    pub(super) fn check(&self) -> Result<()> {
        let wrong = |text: String| Err(Error::Request(text));
        self.size.check()?;
        if !(0.0..=1.0).contains(&self.denoising_strength) {
            return wrong(format!("denoising_strength is {}; 0 to 1 is needed", self.denoising_strength));
        }
        if !self.extra_noise.is_finite() {
            return wrong(format!("extra_noise is {}; a finite number is needed", self.extra_noise));
        }
        Ok(())
    }

    /// The levels of a second pass of so many steps.
    pub(super) fn levels(
        &self,
        sampler: Sampler,
        model: &ModelSigmas,
        schedule: Schedule,
        steps: usize,
        options: &SamplerOptions,
    ) -> Result<HiresLevels> {
        let strength = self.denoising_strength;
        if strength == 0.0 {
            let nothing = Sigmas { levels: vec![], initial_scale: 1.0, final_scale: 1.0 };
            let beginning = Beginning { sigmas: nothing.clone(), noise: self.extra_noise };
            return Ok(HiresLevels { all: nothing, beginning, calls: 0 });
        }
        let too_many = |_| {
            Error::Request(format!(
                "denoising_strength is {strength}; {steps} steps of it are too many of all: give more strength or fewer steps"
            ))
        };
        let part = PartOfSteps::new(steps, strength, true).map_err(too_many)?;
        let mut beginning = levels_from_latents(&sampler, model, schedule, part, options)?;
        beginning.noise += self.extra_noise;
        let all = levels(&sampler, model, schedule, part.steps, options)?;
        Ok(HiresLevels { all, beginning, calls: sampler.foreseen_calls(part.kept + 1) })
    }
}

/// The levels of a second pass.
pub(super) struct HiresLevels {
    /// All those that it is a part of, over which a Brownian motion goes.
    pub all: Sigmas,
    pub beginning: Beginning,
    /// Model calls as A1111 counts them.
    pub calls: usize,
}

/// How large a second pass draws; A1111's `calculate_target_resolution`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HiresSize {
    /// `(width, height)` in pixels that the first pass's picture is brought to, its ratio kept.
    pub upscale_to: (usize, usize),
    /// Columns and rows of latents that are cut off of that then, one half on each side.
    pub truncate: (usize, usize),
}

impl HiresSize {
    /// Of a picture of `width` and `height`: `scale` times as large, or as `resize_x` and `resize_y` say unless both are 0.
    /// One of them alone keeps the ratio; of both, what stands out is cut off.
    pub fn new(width: usize, height: usize, scale: f64, resize_x: usize, resize_y: usize) -> Self {
        let of = |whole: usize, part: usize, other: usize| whole.saturating_mul(part) / other.max(1);
        let by_width = (resize_x, of(resize_x, height, width));
        let by_height = (of(resize_y, width, height), resize_y);
        let whole = |upscale_to| Self { upscale_to, truncate: (0, 0) };
        match (resize_x, resize_y) {
            (0, 0) => whole(((width as f64 * scale) as usize, (height as f64 * scale) as usize)),
            (_, 0) => whole(by_width),
            (0, _) => whole(by_height),
            _ => {
                let is_narrower = (width as f64 / height as f64) < (resize_x as f64 / resize_y as f64);
                let upscale_to = if is_narrower { by_width } else { by_height };
                let cut = |to: usize, wanted: usize| to.saturating_sub(wanted) / 8;
                Self { upscale_to, truncate: (cut(upscale_to.0, resize_x), cut(upscale_to.1, resize_y)) }
            }
        }
    }

    /// `(width, height)` in pixels of what is drawn: whole latents.
    pub fn target(&self) -> (usize, usize) {
        let side = |to: usize, cut: usize| (to / 8).saturating_sub(cut) * 8;
        (side(self.upscale_to.0, self.truncate.0), side(self.upscale_to.1, self.truncate.1))
    }

    fn check(&self) -> Result<()> {
        let ((wide, high), (width, height)) = (self.upscale_to, self.target());
        if width.min(height) < 8 || wide.max(high) > 1 << 14 {
            return Err(Error::Request(format!(
                "hires fix goes by {wide}x{high} to {width}x{height}; 8 to 16384 are possible: give another hr_scale, or \
                 another hr_resize_x and hr_resize_y"
            )));
        }
        Ok(())
    }
}

/// What makes the first pass's picture larger.
#[derive(Clone)]
pub enum HiresUpscaler {
    /// Its latents as they are.
    Latent(LatentFilter),
    /// Its pixels, of 8 bits; by Lanczos if `None`.
    Picture(Option<Arc<dyn Upscaler + Send + Sync>>),
    /// Its pixels, by one of this name that those who take part in drawing have: [`super::Stages::upscale`].
    Named(String),
}

impl HiresUpscaler {
    /// Those of latents, by A1111's names.
    const LATENT: [(&'static str, LatentFilter); 6] = [
        ("Latent", LatentFilter::Bilinear),
        ("Latent (antialiased)", LatentFilter::BilinearAntialiased),
        ("Latent (bicubic)", LatentFilter::Bicubic),
        ("Latent (bicubic antialiased)", LatentFilter::BicubicAntialiased),
        ("Latent (nearest)", LatentFilter::Nearest),
        ("Latent (nearest-exact)", LatentFilter::NearestExact),
    ];

    /// All that are always there, in A1111's order.
    pub fn all() -> impl Iterator<Item = Self> {
        let latent = Self::LATENT.iter().map(|(_, filter)| Self::Latent(*filter));
        let filters = [Filter::Lanczos, Filter::Nearest].map(Self::by);
        latent.chain([Self::Picture(None)]).chain(filters)
    }

    /// The one of these that has A1111's name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::all().find(|upscaler| upscaler.name() == name)
    }

    fn by(filter: Filter) -> Self {
        Self::Picture(Some(Arc::new(filter)))
    }

    /// A1111's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Latent(filter) => {
                Self::LATENT.iter().find(|(_, each)| each == filter).map_or("", |(name, _)| name)
            }
            Self::Picture(None) => "None",
            Self::Picture(Some(upscaler)) => upscaler.name(),
            Self::Named(name) => name,
        }
    }
}

/// What A1111 takes if none is named.
impl Default for HiresUpscaler {
    fn default() -> Self {
        Self::Latent(LatentFilter::Bilinear)
    }
}

impl fmt::Debug for HiresUpscaler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.name())
    }
}

/// Upscalers of one name are the same one.
impl PartialEq for HiresUpscaler {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_a1111s() {
        for ((width, height), (scale, x, y), upscale_to, truncate, target) in [
            ((512, 512), (2.0, 0, 0), (1024, 1024), (0, 0), (1024, 1024)),
            ((512, 768), (1.5, 0, 0), (768, 1152), (0, 0), (768, 1152)),
            // What is no whole latent is left off.
            ((512, 512), (1.3, 0, 0), (665, 665), (0, 0), (664, 664)),
            ((512, 768), (2.0, 1024, 0), (1024, 1536), (0, 0), (1024, 1536)),
            ((512, 768), (2.0, 0, 1000), (666, 1000), (0, 0), (664, 1000)),
            ((512, 512), (2.0, 1024, 1024), (1024, 1024), (0, 0), (1024, 1024)),
            // Another ratio: as large as it must be, and the rest is cut off.
            ((512, 512), (2.0, 1024, 768), (1024, 1024), (0, 32), (1024, 768)),
            ((512, 512), (2.0, 768, 1024), (1024, 1024), (32, 0), (768, 1024)),
            ((512, 768), (2.0, 1000, 1000), (1000, 1500), (0, 62), (1000, 1000)),
            ((512, 512), (2.0, 1020, 1000), (1020, 1020), (0, 2), (1016, 1000)),
            ((512, 512), (2.0, 1000, 997), (1000, 1000), (0, 0), (1000, 1000)),
        ] {
            let size = HiresSize::new(width, height, scale, x, y);
            assert_eq!(size, HiresSize { upscale_to, truncate }, "{width}x{height} by {scale}, {x}x{y}");
            assert_eq!(size.target(), target, "{width}x{height} by {scale}, {x}x{y}");
            assert!(size.check().is_ok());
        }
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        for (scale, x, y) in [
            (0.0, 0, 0),
            (-1.0, 0, 0),
            (f64::NAN, 0, 0),
            (f64::INFINITY, 0, 0),
            (33.0, 0, 0),
            (2.0, 4, 0),
            (2.0, 0, 20_000),
            (2.0, 16_384, 8_000_000),
            (2.0, usize::MAX, 1),
            (2.0, 0, 4),
        ] {
            let error = HiresSize::new(512, 512, scale, x, y).check().expect_err("refused").to_string();
            assert!(error.contains("8 to 16384") && error.contains("hr_scale"), "{scale}, {x}x{y}: {error}");
        }
        let _ = HiresSize::new(0, 0, 2.0, 8, 8).check();
    }

    #[test]
    fn upscalers_have_a1111s_names() {
        let names: Vec<String> = HiresUpscaler::all().map(|upscaler| upscaler.name().to_owned()).collect();
        assert_eq!(
            names,
            [
                "Latent",
                "Latent (antialiased)",
                "Latent (bicubic)",
                "Latent (bicubic antialiased)",
                "Latent (nearest)",
                "Latent (nearest-exact)",
                "None",
                "Lanczos",
                "Nearest"
            ]
        );
        for name in names {
            let found = HiresUpscaler::from_name(&name).expect("known");
            assert_eq!(found.name(), name);
            assert_eq!(found, found.clone());
        }
        assert_eq!(HiresUpscaler::from_name("R-ESRGAN 4x+"), None);
        assert_eq!(HiresUpscaler::default().name(), "Latent");
    }
}

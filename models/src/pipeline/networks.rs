//! What evaluates the model in a pass: one checkpoint's UNet, and what it is told of each image.

use std::ops::Range;
use std::sync::Arc;

use super::components::Components;
use super::freed::FreedAtTheEnd;
use super::guidance::Guidance;
use super::handles::Handles;
use super::stages::Stages;
use super::watch::Watch;
use crate::Result;
use crate::model::{ModelFacts, TextEncoder, UNetInput};
use crate::networks::unet::UNet;
use crate::nn::{KeyValueTransform, Run, Wrap};
use crate::sampling::ModelSigmas;

/// A checkpoint's part in a pass.
pub(super) struct PassNetworks {
    pub facts: ModelFacts,
    pub sigmas: ModelSigmas,
    /// One per image of the pass.
    pub guidance: Vec<Guidance>,
    pub unet: Arc<UNet>,
    pub transforms: Vec<Arc<dyn KeyValueTransform>>,
    /// Whether it goes on where another one ended.
    pub is_refiner: bool,
    /// Drawn with as long as `unet` is, which may be a view of it.
    _lent: Arc<UNet>,
    _memory: FreedAtTheEnd,
}

/// What images of a request, counted over all of it, are told: by its own text encoder, or a refiner's, if so; and as somebody
/// changes it who wants to.
pub(super) type Guide<'a> =
    dyn Fn(&TextEncoder, Range<usize>, bool, &Run, Option<&mut dyn Stages>) -> Result<Vec<Guidance>> + 'a;

/// Whom a pass asks and tells while it makes its networks ready.
pub(super) struct Surroundings<'a> {
    /// What images are told, by a text encoder.
    pub guide: &'a Guide<'a>,
    pub tiling: Wrap,
    pub zero_terminal_snr: bool,
    /// How much the picture counts that is edited, if that is said.
    pub image_cfg_scale: Option<f64>,
    pub components: &'a mut dyn Components,
    pub watch: &'a mut dyn Watch,
    pub stages: &'a mut dyn Stages,
    pub wants_conditioning: bool,
    pub handles: &'a mut Handles,
}

impl Surroundings<'_> {
    /// What these images are told, by the text encoder that is lent now.
    pub(super) fn guidance(&mut self, images: Range<usize>, is_refiner: bool) -> Result<Vec<Guidance>> {
        if let Some(model) = self.components.shape() {
            self.stages.model(&model);
        }
        let encoder = self.components.text_encoder()?;
        let _memory = FreedAtTheEnd(encoder.clip.device().clone());
        let cancelled = || self.watch.cancelled();
        let stages: Option<&mut dyn Stages> =
            if self.wants_conditioning { Some(&mut *self.stages) } else { None };
        (self.guide)(&encoder, images, is_refiner, &Run::until(&cancelled), stages)
    }

    /// The networks that are lent now, for images that are told so.
    pub(super) fn networks(
        &mut self,
        facts: ModelFacts,
        is_refiner: bool,
        guidance: Vec<Guidance>,
    ) -> Result<PassNetworks> {
        // At 1 it counts as in guidance by text alone, as A1111 has it too.
        let image_scale = self.image_cfg_scale.filter(|scale| *scale != 1.0);
        let guidance = match image_scale.filter(|_| facts.unet_input == UNetInput::Edit) {
            Some(scale) => guidance.into_iter().map(|one| one.edited(scale)).collect::<Result<_>>()?,
            None => guidance,
        };
        let lent = self.components.unet()?;
        let unet = match self.tiling {
            Wrap { x: false, y: false } => Arc::clone(&lent),
            wrap => Arc::new(lent.wrapping(wrap)),
        };
        Ok(PassNetworks {
            facts,
            sigmas: facts.sigmas(self.zero_terminal_snr),
            guidance,
            transforms: self.components.transforms()?,
            is_refiner,
            _memory: FreedAtTheEnd(unet.device().clone()),
            unet,
            _lent: lent,
        })
    }
}

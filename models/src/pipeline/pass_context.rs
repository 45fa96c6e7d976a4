//! What a pass is sampled with, and how one checkpoint's networks take the place of another's.

use std::ops::Range;

use super::attention::{Prepared, prepared};
use super::contexts::Contexts;
use super::evaluation::PassKind;
use super::image_conditioning::{Channels, check_refiner};
use super::networks::{PassNetworks, Surroundings};
use super::previews::Previews;
use super::sampling_options::Skipped;
use super::stages::{AttentionStage, Wants};
use super::time_embeddings::TimeEmbeddings;
use super::watch::Progress;
use crate::model::ModelFacts;
use crate::nn::Run;
use crate::sampling::ModelSigmas;
use crate::{Error, Result};

/// What a pass is sampled with.
pub(super) struct PassContext<'a> {
    pub around: Surroundings<'a>,
    /// What the pass is for.
    pub kind: PassKind,
    /// What is known of the checkpoint that it begins with.
    pub facts: &'a ModelFacts,
    /// Its noise levels.
    pub sigmas: &'a ModelSigmas,
    /// The images of the pass, counted over the request.
    pub images: Range<usize>,
    /// Whose turn it is; none while one goes and another one comes.
    pub networks: Option<PassNetworks>,
    pub wants: Wants,
    /// What its images are shown, if its own checkpoint sees a picture.
    pub channels: Option<Channels>,
    /// What rows look up otherwise.
    pub attention: Vec<Prepared>,
    pub contexts: &'a mut Contexts,
    pub times: &'a mut TimeEmbeddings,
    /// What previews are made by; of latents alone if `None`.
    pub previews: Option<&'a Previews>,
    /// The share of the way after which the refiner goes on; none does if `None`.
    pub refiner_switch_at: Option<f64>,
    /// Rows and columns of latents of a picture.
    pub latents: (usize, usize),
    /// Where the request stands as the pass begins.
    pub progress: Progress,
    /// Why what is steered away from was left out.
    pub skipped: &'a mut Skipped,
}

impl PassContext<'_> {
    /// Makes ready what the next evaluations need of the networks whose turn it is.
    pub(super) fn prepare(&mut self) -> Result<()> {
        let networks = self.networks.as_ref().ok_or_else(nobodys_turn)?;
        let cancelled = || self.around.watch.cancelled();
        // Stages may change conditioning from pass to pass; mostly they do not.
        let run = Run::until(&cancelled);
        let branches = networks.guidance.iter().flat_map(|guidance| &guidance.branches);
        let first: Vec<_> = branches.map(|branch| branch.at(0)).collect::<Result<_>>()?;
        self.contexts.need(first.into_iter(), &networks.unet, &networks.transforms, &run)?;
        self.times.prepare(&networks.unet);
        if self.wants.attention {
            let config = networks.unet.config();
            let stage = AttentionStage {
                images: self.images.clone(),
                context_width: config.context_width,
                bytes_per_token: 2 * size_of::<f32>() * config.context_channels(),
                bytes_of_sources: size_of::<f32>() * config.attention_source_values(self.latents),
            };
            let rules = self.around.stages.attention(&stage)?;
            self.attention = prepared(rules, networks, &run)?;
        }
        Ok(())
    }

    /// It is the refiner's turn: what was drawn with before is let go of first.
    pub(super) fn refine(&mut self) -> Result<()> {
        self.networks = None;
        let facts = self.around.components.refine()?;
        check_refiner(self.facts, &facts)?;
        self.take_turn(facts, true)
    }

    /// It is the turn of the checkpoint that the pass began with again, for the next image.
    pub(super) fn begin_again(&mut self) -> Result<()> {
        self.networks = None;
        match self.kind {
            PassKind::Base => self.around.components.begin_pass(),
            PassKind::Hires => drop(self.around.components.begin_hires_pass()?),
        }
        self.take_turn(*self.facts, false)
    }

    fn take_turn(&mut self, facts: ModelFacts, is_refiner: bool) -> Result<()> {
        let guidance = self.around.guidance(self.images.clone(), is_refiner)?;
        self.networks = Some(self.around.networks(facts, is_refiner, guidance)?);
        self.prepare()
    }
}

pub(super) fn nobodys_turn() -> Error {
    Error::Compute("an evaluation between two networks".to_owned())
}

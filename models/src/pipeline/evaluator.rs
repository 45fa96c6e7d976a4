//! One call of the model: latents of any rows to samples, with the stages within the UNet.

use std::ops::Range;
use std::sync::Arc;

use super::attention::{Prepared, bank_of, rules_of};
use super::contexts::Contexts;
use super::evaluation::{Evaluation, Region, Row};
use super::handles::Handles;
use super::image_conditioning::Channels;
use super::networks::PassNetworks;
use super::residuals::{self, Residual};
use super::stages::{ControlResiduals, Evaluate, NoStages, Stages, Wants};
use super::time_embeddings::TimeEmbeddings;
use super::unet_blocks::BlockStages;
use super::watch::Watch;
use crate::files::Prediction;
use crate::model::UNetInput;
use crate::networks::attention_bank::Bank;
use crate::networks::unet::{AttentionRule, RowContext, UNetCall};
use crate::networks::unet_residuals::ResidualSizes;
use crate::nn::Run;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Pixels of a latent.
const SCALE: usize = 8;

/// What a call of the model takes, but for the stages.
pub(super) struct Evaluator<'a> {
    pub networks: &'a PassNetworks,
    pub contexts: &'a mut Contexts,
    pub times: &'a mut TimeEmbeddings,
    /// What images are shown, if the checkpoint sees a picture.
    pub channels: Option<&'a Channels>,
    pub handles: &'a mut Handles,
    pub watch: &'a dyn Watch,
    pub wants: Wants,
    /// What rows look up otherwise.
    pub attention: &'a [Prepared],
    /// The first of the images, counted over the request; and its place in the pass.
    pub first_image: (usize, usize),
    /// Rows that are evaluated together.
    pub at_once: usize,
    /// Whether the sampler goes by whole timesteps.
    pub by_timesteps: bool,
    /// Rows and columns of the latents that are drawn.
    pub latents: (usize, usize),
}

/// A sample is so much of the state less so much of the network's output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Parts {
    pub of_x: f64,
    pub of_output: f64,
}

impl Evaluator<'_> {
    /// What a sample is made of.
    pub(super) fn parts(&self, evaluation: &Evaluation) -> Parts {
        let sigma = evaluation.sigma;
        match evaluation.prediction {
            Prediction::Epsilon => Parts { of_x: 1.0, of_output: sigma },
            // As A1111 does for samplers that go by timesteps, by the whole one below.
            Prediction::Velocity if self.by_timesteps => {
                let alpha = self.networks.sigmas.alphas_cumprod().get(evaluation.timestep as usize).copied();
                let alpha = f64::from(alpha.unwrap_or_default());
                let of_state = sigma * (1.0 - alpha).sqrt() / (sigma * sigma + 1.0).sqrt();
                Parts { of_x: 1.0 - of_state, of_output: sigma * alpha.sqrt() }
            }
            Prediction::Velocity => {
                Parts { of_x: 1.0 / (sigma * sigma + 1.0), of_output: sigma / (sigma * sigma + 1.0).sqrt() }
            }
        }
    }

    /// The UNet's output for each row, `(1, channels, height, width)`, of noisy latents like it.
    pub(super) fn outputs(
        &mut self,
        stages: &mut dyn Stages,
        evaluation: &Evaluation,
        x: &[Tensor],
    ) -> Result<Vec<Tensor>> {
        let sigma = evaluation.sigma;
        let latents: Vec<Tensor> = x.iter().map(|x| x.scaled(1.0 / (sigma * sigma + 1.0).sqrt())).collect();
        let networks = self.networks;
        let sizes = networks.unet.config().residual_sizes(evaluation.latents);
        let residuals = self.residuals(stages, evaluation, &latents, &sizes)?;
        let latents = self.with_channels(&evaluation.rows, latents)?;
        let rules: Vec<Vec<AttentionRule>> = evaluation
            .rows
            .iter()
            .map(|row| rules_of(self.attention, row, self.place(row)?, evaluation))
            .collect::<Result<_>>()?;
        let time = self.times.get(&networks.unet, evaluation.timestep)?;
        let watch = self.watch;
        let cancelled = || watch.cancelled();
        let needed = evaluation.rows.iter().map(|row| &row.conditioning);
        let run = Run::until(&cancelled);
        self.contexts.need(needed, &networks.unet, &networks.transforms, &run)?;
        let mut outputs = vec![];
        let at_once = self.at_once.max(1);
        let groups = evaluation.rows.len().div_ceil(at_once);
        for (group, rows) in evaluation.rows.chunks(at_once).enumerate() {
            let range = group * at_once..group * at_once + rows.len();
            let contexts: Vec<RowContext> = rows
                .iter()
                .zip(&rules[range.clone()])
                .map(|(row, rules)| {
                    let context = self.contexts.get(&row.conditioning);
                    let own = context.ok_or_else(|| Error::Compute("a row without context".into()))?;
                    Ok(RowContext { own, rules })
                })
                .collect::<Result<_>>()?;
            let residuals = residuals::of_rows(&residuals, &evaluation.rows, range.clone(), &sizes)?;
            let call = UNetCall {
                times: &vec![time; rows.len()],
                contexts: &contexts,
                residuals: &residuals,
                transforms: &networks.transforms,
            };
            let x = Tensor::cat(&latents[range.clone()].iter().collect::<Vec<_>>(), 0)?;
            let mut blocks = BlockStages {
                stages: &mut *stages,
                handles: &mut *self.handles,
                evaluation,
                is_wanted: self.wants.unet_block,
                rows: range,
                group,
                groups,
            };
            let run = Run::until(&cancelled);
            let output = networks.unet.denoise_visited(&x, &call, &run, &mut blocks)?;
            for index in 0..rows.len() {
                outputs.push(output.narrow(0, index, 1)?);
            }
        }
        Ok(outputs)
    }

    /// Each row's latents with what its image is shown behind them, for a checkpoint that sees a picture.
    fn with_channels(&self, rows: &[Row], latents: Vec<Tensor>) -> Result<Vec<Tensor>> {
        let is_shown = self.networks.facts.unet_input != UNetInput::Latents;
        let Some(channels) = self.channels.filter(|_| is_shown) else { return Ok(latents) };
        let with = |(row, latents): (&Row, Tensor)| {
            let image = self.place(row)?;
            let guidance = self.networks.guidance.get(image);
            let is_hidden = guidance.is_some_and(|guidance| guidance.hides_the_picture(row.role));
            channels.behind(&latents, image, is_hidden, self.part_of(row)?)
        };
        rows.iter().zip(latents).map(with).collect()
    }

    /// A row's image, counted over the pass.
    fn place(&self, row: &Row) -> Result<usize> {
        let (first, place) = self.first_image;
        let of_part = row.image.checked_sub(first);
        of_part.map(|of_part| place + of_part).ok_or_else(|| {
            Error::Request(format!("a row is of image {}, which is not drawn in this pass", row.image))
        })
    }

    /// The latents of a row's image that it shows, as rows and columns; `None` if it is all of them.
    fn part_of(&self, row: &Row) -> Result<Option<(Range<usize>, Range<usize>)>> {
        let region = row.region;
        if (region.x, region.y) == (0, 0)
            && (region.width, region.height) == (region.canvas_width, region.canvas_height)
        {
            return Ok(None);
        }
        let side = |from: i64, size: usize, whole: usize| {
            let from = usize::try_from(from).ok().filter(|from| from.is_multiple_of(SCALE))?;
            let range = from / SCALE..(from + size) / SCALE;
            (size.is_multiple_of(SCALE) && range.end <= whole).then_some(range)
        };
        let (rows, columns) = self.latents;
        match (side(region.y, region.height, rows), side(region.x, region.width, columns)) {
            (Some(rows), Some(columns)) => Ok(Some((rows, columns))),
            _ => Err(Error::Request(format!(
                "a tile {region:?} of a checkpoint that sees a picture must lie within it, at multiples of {SCALE}"
            ))),
        }
    }

    /// What somebody wants to add in the UNet, for all rows.
    fn residuals(
        &mut self,
        stages: &mut dyn Stages,
        evaluation: &Evaluation,
        latents: &[Tensor],
        sizes: &ResidualSizes,
    ) -> Result<Vec<Residual>> {
        if !self.wants.control_residuals {
            return Ok(vec![]);
        }
        let latents = self.handles.insert(Tensor::cat(&latents.iter().collect::<Vec<_>>(), 0)?);
        let stage = ControlResiduals { evaluation, latents, sizes };
        let residuals = stages.control_residuals(&stage, self.handles)?;
        self.handles.end_call();
        Ok(residuals)
    }
}

impl Evaluate for Evaluator<'_> {
    fn timestep(&self, sigma: f64) -> f32 {
        self.networks.sigmas.sigma_to_t(sigma)
    }

    fn bank(&self, owner: &str, name: &str) -> Option<Arc<Bank>> {
        bank_of(self.attention, owner, name)
    }

    fn evaluate(
        &mut self,
        stages: Option<&mut dyn Stages>,
        evaluation: &Evaluation,
        x: &Tensor,
    ) -> Result<Tensor> {
        let (rows, channels, height, width) = x.dims4()?;
        let of_family = self.networks.facts.family.latent_channels;
        if rows == 0 || rows != evaluation.rows.len() || channels != of_family {
            let asked = evaluation.rows.len();
            return Err(Error::Request(format!(
                "x is {:?}, ({asked}, {of_family}, height, width) is needed for {asked} rows",
                x.dims()
            )));
        }
        // Memory was planned for what the pass draws.
        let (rows_of_pass, columns_of_pass) = self.latents;
        if height * width > rows_of_pass * columns_of_pass || height * width == 0 {
            return Err(Error::Request(format!(
                "x is of {height} by {width} latents, the pass is of {rows_of_pass} by {columns_of_pass}"
            )));
        }
        for (index, row) in evaluation.rows.iter().enumerate() {
            self.place(row)?;
            let Region { width: wide, height: high, .. } = row.region;
            if (high / SCALE, wide / SCALE) != (height, width) {
                return Err(Error::Request(format!(
                    "row {index} shows {wide} by {high} pixels, which are not {width} by {height} latents"
                )));
            }
        }
        let x: Vec<Tensor> = (0..rows).map(|row| x.narrow(0, row, 1)).collect::<Result<_>>()?;
        let outputs = if let Some(stages) = stages {
            self.outputs(stages, evaluation, &x)?
        } else {
            let (wants, attention) = (std::mem::take(&mut self.wants), std::mem::take(&mut self.attention));
            let outputs = self.outputs(&mut NoStages, evaluation, &x);
            (self.wants, self.attention) = (wants, attention);
            outputs?
        };
        let Parts { of_x, of_output } = self.parts(evaluation);
        let samples: Vec<Tensor> = x
            .iter()
            .zip(&outputs)
            .map(|(x, output)| x.scaled(of_x).minus(&output.scaled(of_output)))
            .collect::<Result<_>>()?;
        let samples = Tensor::cat(&samples.iter().collect::<Vec<_>>(), 0)?;
        // Whoever asked is not to blame: another range of numbers may hold what this one does not.
        if samples.values().iter().any(|value| !value.is_finite()) {
            return Err(not_finite());
        }
        Ok(samples)
    }
}

/// The network's numbers overflowed.
pub(super) fn not_finite() -> Error {
    let reason = "the UNet's output came out as NaN: the checkpoint's weights overflow, or are broken";
    Error::NotFinite(reason.to_owned())
}

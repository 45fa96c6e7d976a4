//! What is added within the UNet: the stage as a drawing calls it, and as another host would.

use std::cell::RefCell;

use latentd_models::model::ModelShape;
use latentd_models::networks::unet_residuals::ResidualSizes;
use latentd_models::pipeline::{ControlResiduals, Handles, Residual, Stages as _};
use latentd_plugin_api::abi::latentd_control;

use super::bench::Bench;
use super::scene::{Made, Scene};
use super::wider::{Roomy, Wider};
use crate::error::Result;
use crate::plugins::call::{Adding, AtHand, Want};
use crate::plugins::host::add_residual;
use crate::plugins::objects::Content;
use crate::plugins::stages::{self, Called, JobStages};

impl Scene {
    fn sizes(&self) -> ResidualSizes {
        ModelShape::sd15().unet.residual_sizes(self.evaluation.latents)
    }

    pub(super) fn call_residuals(&self, mut stages: &JobStages<'_>) -> latentd_models::Result<Made> {
        let mut handles = Handles::default();
        let (latents, sizes) = (handles.insert(self.outputs.clone()), self.sizes());
        let stage = ControlResiduals { evaluation: &self.evaluation, latents, sizes: &sizes };
        let added = stages.control_residuals(&stage, &mut handles)?;
        Ok(self.made_of(&added, &[]))
    }

    pub(super) fn run_residuals_wider(
        &self,
        stages: &JobStages<'_>,
        job: &Bench,
        wider: &Wider,
    ) -> Result<Made> {
        let evaluation = &self.evaluation;
        let is_turn = |want: &Want| want.has(evaluation.step, evaluation.steps);
        let instance = stages.instances.first();
        let Some(instance) =
            instance.filter(|instance| instance.member.want(self.stage).is_some_and(is_turn))
        else {
            return Ok(Made(vec![]));
        };
        let mut contents = vec![Content::Tensor(self.outputs.clone())];
        let masks = stages::masks(evaluation)?;
        let of_contexts = 1 + masks.len();
        contents.extend(masks);
        contents.extend(stages::contexts(evaluation));
        let adding =
            Adding { sizes: self.sizes(), rows: evaluation.rows.len(), residuals: RefCell::default() };
        let function = |called: &Called<'_>| {
            let lent = |from: usize| called.handles.get(from..).unwrap_or_default();
            let eval = self.eval(wider, lent(1), Some(lent(of_contexts)));
            let args = latentd_control {
                size: 0,
                reserved: 0,
                eval: eval.of.pointer(),
                x: called.handles.first().copied().unwrap_or_default(),
                add: Some(add_residual),
            };
            let args = Roomy::of(&args, wider.behind_structs);
            called.tables.control_residuals.and_then(|table| table.run).map_or(0, |run| {
                // SAFETY: what is lent lives until the function returns; instance and call are this plugin's.
                unsafe { run(called.instance, called.call, args.pointer()) }
            })
        };
        let at_hand = AtHand { adding: Some(&adding), ..AtHand::default() };
        stages::call(instance, job, self.stage, (&mut contents, 0), at_hand, &function)?;
        // What is added to rows of somebody else's is theirs.
        let others: Vec<usize> = wider.rows.iter().map(|(row, ..)| *row).collect();
        Ok(self.made_of(&adding.residuals.into_inner(), &others))
    }

    /// The numbers of what is added to each row but some, in an order that does not hang on theirs.
    fn made_of(&self, added: &[Residual], others: &[usize]) -> Made {
        let rows = &self.evaluation.rows;
        let mut order: Vec<usize> = (0..rows.len()).filter(|row| !others.contains(row)).collect();
        order.sort_by_key(|row| rows.get(*row).map(|row| (row.image, row.branch)));
        let mut made = vec![];
        for row in order {
            for residual in added {
                let entry = match &residual.rows {
                    Some(named) => named.iter().position(|named| *named == row),
                    None => Some(row),
                };
                let Some(entry) = entry else { continue };
                let entry = if residual.tensor.dim(0) == 1 { 0 } else { entry };
                let length = residual.tensor.values().len() / residual.tensor.dim(0).max(1);
                made.push(residual.scale);
                made.extend(residual.tensor.values().iter().skip(entry * length).take(length));
                made.extend(residual.mask.iter().flat_map(latentd_models::Tensor::values));
            }
        }
        Made(made)
    }
}

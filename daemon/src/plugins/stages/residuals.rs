//! `control.residuals`: what plugins add within the UNet, once per evaluation.

use std::cell::{Cell, RefCell};

use latentd_models::pipeline::{ControlResiduals, Handles, Residual};
use latentd_plugin_api::abi::{LATENTD_CONTROL_RESIDUALS, latentd_control};

use super::told::{contexts, masks, rows, tell_contexts, told};
use super::{AtHand, Called, JobStages};
use crate::plugins::call::{Adding, Evaluated};
use crate::plugins::host::add_residual;
use crate::plugins::objects::Content;

impl JobStages<'_> {
    /// Those of all whose turn it is, in the order of their chain.
    pub(super) fn residuals(
        &self,
        stage: &ControlResiduals,
        tensors: &mut Handles,
    ) -> latentd_models::Result<Vec<Residual>> {
        let evaluation = stage.evaluation;
        let mut residuals = vec![];
        for index in self.plugins.chains.get(LATENTD_CONTROL_RESIDUALS).into_iter().flatten() {
            let Some(instance) = self.instances.get(*index) else { continue };
            let want = instance.member.want(LATENTD_CONTROL_RESIDUALS);
            if !want.is_some_and(|want| want.has(evaluation.step, evaluation.steps)) {
                continue;
            }
            let latents = tensors.read(stage.latents)?.clone();
            let mut contents = vec![Content::Tensor(latents.clone())];
            let masks = masks(evaluation)?;
            let of_contexts = 1 + masks.len();
            contents.extend(masks);
            contents.extend(contexts(evaluation));
            let adding = Adding {
                sizes: stage.sizes.clone(),
                rows: evaluation.rows.len(),
                residuals: RefCell::default(),
            };
            let status = Cell::new(0);
            let function = |called: &Called<'_>| {
                let lent = |from: usize| called.handles.get(from..).unwrap_or_default();
                let mut rows = rows(evaluation, lent(1));
                tell_contexts(&mut rows, evaluation, lent(of_contexts));
                let eval = told(evaluation, &rows);
                let args = latentd_control {
                    size: size_of::<latentd_control>() as u32,
                    reserved: 0,
                    eval: &raw const eval,
                    x: called.handles.first().copied().unwrap_or_default(),
                    add: Some(add_residual),
                };
                let answer = called.tables.control_residuals.and_then(|table| table.run).map_or(0, |run| {
                    // SAFETY: what is lent lives until the function returns; instance and call are this plugin's.
                    unsafe { run(called.instance, called.call, &raw const args) }
                });
                status.set(answer);
                answer
            };
            let evaluated = Evaluated { evaluation, latents: &latents, scale: 1.0 };
            let at_hand = AtHand { adding: Some(&adding), evaluated: Some(&evaluated), ..AtHand::default() };
            self.called(instance, LATENTD_CONTROL_RESIDUALS, (&mut contents, 0), at_hand, function)?;
            // What is skipped is as if it had never been called.
            if status.get() == 0 {
                residuals.extend(adding.residuals.into_inner());
            }
        }
        Ok(residuals)
    }
}

//! Each so many-th of the model's own levels.

use super::plan::{Plan, ScheduleInfo, and_zero};

pub(super) const INFO: ScheduleInfo = ScheduleInfo { levels, has_range: false, rho: None };

fn levels(plan: &Plan) -> Vec<f32> {
    let sigmas = plan.model.sigmas();
    let stride = sigmas.len() as f64 / plan.steps as f64;
    let index = |step: usize| sigmas.len() - 1 - ((step as f64 * stride) as usize).min(sigmas.len() - 1);
    and_zero((0..plan.steps).map(|step| sigmas[index(step)]))
}

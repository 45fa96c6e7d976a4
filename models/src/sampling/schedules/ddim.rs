//! DDIM's levels, for samplers that go by a schedule. There can be more of them than steps were asked for.

use super::plan::{Plan, ScheduleInfo, and_zero};

pub(super) const INFO: ScheduleInfo = ScheduleInfo { levels, has_range: false, rho: None };

fn levels(plan: &Plan) -> Vec<f32> {
    let sigmas = plan.model.sigmas();
    let stride = (sigmas.len() / plan.steps).max(1);
    let mut rising: Vec<f32> = sigmas.iter().skip(1).step_by(stride).copied().collect();
    rising.reverse();
    and_zero(rising)
}

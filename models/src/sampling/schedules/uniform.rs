//! Uniform in time, whatever the range.

use super::plan::{Plan, Rounding, ScheduleInfo, and_zero, linspace};

pub(super) const INFO: ScheduleInfo = ScheduleInfo { levels, has_range: false, rho: None };

fn levels(plan: &Plan) -> Vec<f32> {
    let (low, high) = plan.model.timesteps();
    let times: Vec<f64> = match plan.rounding {
        Rounding::Once => (0..plan.steps).map(|step| low + (1.0 - plan.ramp(step)) * (high - low)).collect(),
        Rounding::Torch => linspace(high, low, plan.steps).into_iter().map(f64::from).collect(),
    };
    and_zero(times.into_iter().map(|t| plan.model.t_to_sigma(t)))
}

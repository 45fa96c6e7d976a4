//! Uniform in time between the range's ends.

use super::plan::{Plan, ScheduleInfo, and_zero, linspace};

pub(super) const INFO: ScheduleInfo = ScheduleInfo { levels, has_range: true, rho: None };

fn levels(plan: &Plan) -> Vec<f32> {
    let (first, last) = times(plan);
    and_zero(linspace(first, last, plan.steps).into_iter().map(|t| plan.model.t_to_sigma(f64::from(t))))
}

/// The timesteps of the range's ends, the higher one first.
pub(super) fn times(plan: &Plan) -> (f64, f64) {
    let time = |sigma| f64::from(plan.model.sigma_to_t(sigma));
    (time(plan.max), time(plan.min))
}

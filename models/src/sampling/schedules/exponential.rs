//! Uniform in the logarithm of the level.

use super::plan::{Plan, Rounding, ScheduleInfo, and_zero, in_f32, linspace};

pub(super) const INFO: ScheduleInfo = ScheduleInfo { levels, has_range: true, rho: None };

fn levels(plan: &Plan) -> Vec<f32> {
    let (min, max) = (plan.min.ln(), plan.max.ln());
    match plan.rounding {
        Rounding::Once => {
            and_zero((0..plan.steps).map(|step| (max + plan.ramp(step) * (min - max)).exp() as f32))
        }
        Rounding::Torch => {
            and_zero(linspace(max, min, plan.steps).into_iter().map(|log| in_f32(log, f64::exp)))
        }
    }
}

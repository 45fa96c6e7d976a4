//! A power of the ramp in the logarithm of the level.

use super::plan::{Plan, ScheduleInfo, and_zero, in_f32, linspace};

pub(super) const INFO: ScheduleInfo = ScheduleInfo { levels, has_range: true, rho: Some(1.0) };

fn levels(plan: &Plan) -> Vec<f32> {
    let (range, low) = ((plan.max.ln() - plan.min.ln()) as f32, plan.min.ln() as f32);
    let level = |ramp: f32| in_f32(in_f32(ramp, |x| x.powf(plan.rho)) * range + low, f64::exp);
    and_zero(linspace(1.0, 0.0, plan.steps).into_iter().map(level))
}

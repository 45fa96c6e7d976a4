//! Uniform in the angle whose tangent is the level (Sabour et al. 2024, theorem 3.1). As in A1111 1.10 it ends at the
//! range's lower end, not at 0.

use super::plan::{Plan, ScheduleInfo, in_f32};

pub(super) const INFO: ScheduleInfo = ScheduleInfo { levels, has_range: true, rho: None };

fn levels(plan: &Plan) -> Vec<f32> {
    let angle = |level: f64| in_f32(level as f32, f64::atan);
    let (min, max) = (angle(plan.min), angle(plan.max));
    let ramp = |step: usize| step as f32 / plan.steps as f32;
    let level = |step| in_f32(ramp(step) * min + (1.0 - ramp(step)) * max, f64::tan);
    (0..=plan.steps).map(level).collect()
}

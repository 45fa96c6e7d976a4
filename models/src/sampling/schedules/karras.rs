//! Uniform in the ρ-th root of the level (Karras et al. 2022).

use super::plan::{Plan, Rounding, ScheduleInfo, and_zero, in_f32, linspace};

pub(super) const INFO: ScheduleInfo = ScheduleInfo { levels, has_range: true, rho: Some(7.0) };

fn levels(plan: &Plan) -> Vec<f32> {
    karras(plan.steps, (plan.min, plan.max), plan.rho, plan.rounding)
}

/// `steps` levels from the higher end of a range to its lower one, and 0.
pub(in crate::sampling) fn karras(
    steps: usize,
    (min, max): (f64, f64),
    rho: f64,
    rounding: Rounding,
) -> Vec<f32> {
    let (min, max) = (min.powf(1.0 / rho), max.powf(1.0 / rho));
    match rounding {
        Rounding::Once => {
            let ramp = |step| if steps == 1 { 0.0 } else { step as f64 / (steps - 1) as f64 };
            and_zero((0..steps).map(|step| (max + ramp(step) * (min - max)).powf(rho) as f32))
        }
        Rounding::Torch => {
            let root = |ramp: f32| max as f32 + ramp * (min - max) as f32;
            and_zero(linspace(0.0, 1.0, steps).into_iter().map(|ramp| in_f32(root(ramp), |x| x.powf(rho))))
        }
    }
}

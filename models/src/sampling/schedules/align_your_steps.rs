//! Levels found best for ten steps of SD 1.5, interpolated for others (Sabour et al. 2024, "Align Your Steps").

use super::plan::{Plan, ScheduleInfo, and_zero};

pub(super) const INFO: ScheduleInfo = ScheduleInfo { levels, has_range: false, rho: None };

/// NVIDIA's for SD 1.5, falling.
const BEST: [f64; 11] = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029];

fn levels(plan: &Plan) -> Vec<f32> {
    if plan.steps == BEST.len() {
        return and_zero(BEST.map(|level| level as f32));
    }
    // One step alone begins at the lower end, as in A1111.
    let from_end = |step: usize| 1.0 - if plan.steps == 1 { 1.0 } else { plan.ramp(step) };
    and_zero((0..plan.steps).map(|step| between(from_end(step)).exp() as f32))
}

/// The logarithm of the level at a place from 0, the lowest, to 1.
fn between(place: f64) -> f64 {
    let last = BEST.len() - 1;
    let index = place * last as f64;
    let low = (index.floor() as usize).min(last - 1);
    let log = |index: usize| BEST[last - index].ln();
    log(low) + (index - low as f64) * (log(low + 1) - log(low))
}

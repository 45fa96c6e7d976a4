//! Uniform in time, the last step ending where one more would: the schedule of Stability's own `sgm`.

use super::normal::times;
use super::plan::{Plan, ScheduleInfo, and_zero, linspace};

pub(super) const INFO: ScheduleInfo = ScheduleInfo { levels, has_range: true, rho: None };

fn levels(plan: &Plan) -> Vec<f32> {
    let (first, last) = times(plan);
    let times = linspace(first, last, plan.steps + 1).into_iter().take(plan.steps);
    and_zero(times.map(|t| plan.model.t_to_sigma(f64::from(t))))
}

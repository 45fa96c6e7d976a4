//! Quantiles of a beta distribution over the range: many steps at both ends, few between ("Beta Sampling is All You Need",
//! Lee et al. 2024).

use super::beta_quantile::beta_quantile;
use super::plan::{Plan, ScheduleInfo, and_zero};

pub(super) const INFO: ScheduleInfo = ScheduleInfo { levels, has_range: true, rho: None };

fn levels(plan: &Plan) -> Vec<f32> {
    let (alpha, beta) = (plan.options.beta_dist_alpha, plan.options.beta_dist_beta);
    let level = |step| plan.min + beta_quantile(1.0 - plan.ramp(step), alpha, beta) * (plan.max - plan.min);
    and_zero((0..plan.steps).map(|step| level(step) as f32))
}

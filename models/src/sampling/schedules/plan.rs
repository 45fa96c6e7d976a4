//! What schedules are made from, and torch's arithmetic for them.

use crate::sampling::model_sigmas::ModelSigmas;
use crate::sampling::options::SamplerOptions;

/// One schedule of levels.
pub(super) struct ScheduleInfo {
    /// The levels, falling; all but the last over 0.
    pub levels: fn(&Plan) -> Vec<f32>,
    /// Whether it goes by [`Plan::min`] and [`Plan::max`].
    pub has_range: bool,
    /// The exponent that it goes by, if it has one.
    pub rho: Option<f64>,
}

/// How numbers are rounded on their way to a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// Once, at the end.
    Once,
    /// To f32 at each operation, as torch does: a Brownian tree tells levels apart by a millionth.
    Torch,
}

/// What is asked of a schedule.
pub(super) struct Plan<'a> {
    /// Steps, at least 1.
    pub steps: usize,
    /// The lowest level above 0.
    pub min: f64,
    /// The highest level.
    pub max: f64,
    /// The exponent, for schedules that have one.
    pub rho: f64,
    pub rounding: Rounding,
    pub model: &'a ModelSigmas,
    pub options: &'a SamplerOptions,
}

impl Plan<'_> {
    /// How far step `step` is on the way from the first to the last, from 0 to 1.
    pub(super) fn ramp(&self, step: usize) -> f64 {
        if self.steps == 1 { 0.0 } else { step as f64 / (self.steps - 1) as f64 }
    }
}

/// `levels`, and 0.
pub(super) fn and_zero(levels: impl IntoIterator<Item = f32>) -> Vec<f32> {
    levels.into_iter().chain([0.0]).collect()
}

/// torch.linspace in f32: a rounded stride, counted from the nearer end, each value rounded once.
pub(super) fn linspace(start: f64, end: f64, count: usize) -> Vec<f32> {
    let (start, end) = (start as f32, end as f32);
    if count < 2 {
        return vec![start; count];
    }
    let stride = f64::from((end - start) / (count - 1) as f32);
    let (start, end) = (f64::from(start), f64::from(end));
    let value = |index: usize| {
        if index < count / 2 {
            start + stride * index as f64
        } else {
            end - stride * (count - 1 - index) as f64
        }
    };
    (0..count).map(|index| value(index) as f32).collect()
}

/// A function in f32, rounded once.
pub(super) fn in_f32(value: f32, f: impl Fn(f64) -> f64) -> f32 {
    f(f64::from(value)) as f32
}

//! When a unit counts, and how much.

use std::cell::Cell;

use latentd_plugin_api::{Evaluation, PassKind};

use crate::network::Kind;
use crate::units::{ControlMode, HiresOption, Unit};

/// What is left of a residual for each place nearer to the latents than the middle of SD 1.
const SOFT: f64 = 0.825;
/// The middle's number there.
const MIDDLE: i32 = 12;
/// The same of an adapter's levels.
const SOFT_LEVELS: [f64; 4] = [0.25, 0.62, 0.825, 1.0];

/// Where samplers are, as A1111 tells its extensions: the step counts once the model has answered for the first time in it. So the
/// first evaluation of each step is of the step before, and further ones of a step (Heun, DPM++ SDE) are of their own.
#[derive(Default)]
pub struct Progress(Cell<Option<Seen>>);

#[derive(Clone, Copy, PartialEq)]
struct Seen {
    pass: (PassKind, usize),
    step: usize,
    /// The first evaluation of it.
    call: usize,
}

impl Progress {
    /// The share of steps, 0 to 1, that is done at an evaluation.
    pub fn share(&self, evaluation: &Evaluation<'_>) -> f64 {
        let Evaluation { pass, pass_index, step, steps, call, .. } = *evaluation;
        let here = Seen { pass: (pass, pass_index), step, call };
        let first = match self.0.get() {
            Some(seen) if seen.pass == here.pass && seen.step == step => seen.call,
            _ => {
                self.0.set(Some(here));
                call
            }
        };
        let told = if call > first { step } else { step.saturating_sub(1) };
        told as f64 / steps.max(1) as f64
    }
}

impl Unit {
    /// Whether it counts in a pass at all.
    pub fn is_in(&self, pass: PassKind, has_hires: bool) -> bool {
        match self.hr_option {
            HiresOption::Low => !has_hires || pass != PassKind::Hires,
            HiresOption::High => !has_hires || pass == PassKind::Hires,
            HiresOption::Both => true,
        }
    }

    /// Whether it counts at this share of steps; both ends do.
    pub fn is_at(&self, share: f64) -> bool {
        (self.guidance_start..=self.guidance_end).contains(&share)
    }

    /// The shares of a pass's steps in whose first evaluations it counts, from one to before another; `None` if in none.
    pub fn span(&self, steps: usize) -> Option<(f64, f64)> {
        let share = |step: usize| step as f64 / steps.max(1) as f64;
        let is_in = |step: &usize| self.is_at(share(step.saturating_sub(1)));
        let (first, last) = ((0..steps).find(is_in)?, (0..steps).rev().find(is_in)?);
        Some((share(first), share(last + 1)))
    }

    /// Whether what is steered away from is left as it is.
    pub fn is_of_cond_alone(&self, is_pooled: bool) -> bool {
        is_pooled || self.control_mode == ControlMode::Control
    }

    /// What each of `count` residuals is multiplied by.
    pub fn scales(&self, kind: Kind, count: usize, pass: PassKind) -> Vec<f64> {
        if let Some(told) = &self.advanced_weighting {
            return told.iter().copied().take(count).collect();
        }
        // Lines that were thin are blurred where they are enlarged.
        let is_forced =
            pass == PassKind::Hires && ["canny", "mlsd"].iter().any(|lines| self.module.contains(lines));
        let is_soft = is_forced || self.control_mode != ControlMode::Balanced;
        let soft = |place: usize| match kind {
            _ if !is_soft => 1.0,
            Kind::ControlNet => SOFT.powi(MIDDLE - place as i32),
            Kind::Adapter => SOFT_LEVELS.get(place).copied().unwrap_or(1.0),
            Kind::IpAdapter => 1.0,
        };
        (0..count).map(|place| self.weight * soft(place)).collect()
    }
}

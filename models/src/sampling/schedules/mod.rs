//! Schedules: which levels a sampler's loop goes over. Each is a function and its row, in a file of its own.

mod align_your_steps;
mod beta;
mod beta_quantile;
mod ddim;
mod exponential;
mod karras;
mod kl_optimal;
mod normal;
mod plan;
mod polyexponential;
mod sgm_uniform;
mod simple;
mod uniform;

use std::fmt;

use super::model_sigmas::ModelSigmas;
use super::options::SamplerOptions;
use crate::{Error, Result};

pub(super) use karras::karras;
pub use plan::Rounding;
use plan::{Plan, ScheduleInfo};

/// Which sigmas the loop goes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// The sampler's own.
    Automatic,
    /// Uniform in t.
    Uniform,
    /// Karras et al.
    Karras,
    /// Exponential in sigma.
    Exponential,
    /// A power in the logarithm of sigma.
    Polyexponential,
    /// Uniform in t, without its end.
    SgmUniform,
    /// Uniform in the arc tangent of sigma.
    KlOptimal,
    /// NVIDIA's for SD 1.5.
    AlignYourSteps,
    /// Of the model's own levels.
    Simple,
    /// Uniform in t within the range.
    Normal,
    /// DDIM's timesteps.
    Ddim,
    /// Quantiles of a beta distribution.
    Beta,
}

impl Schedule {
    /// All of them with A1111's labels.
    pub const ALL: &[(Self, &'static str)] = &[
        (Self::Automatic, "Automatic"),
        (Self::Uniform, "Uniform"),
        (Self::Karras, "Karras"),
        (Self::Exponential, "Exponential"),
        (Self::Polyexponential, "Polyexponential"),
        (Self::SgmUniform, "SGM Uniform"),
        (Self::KlOptimal, "KL Optimal"),
        (Self::AlignYourSteps, "Align Your Steps"),
        (Self::Simple, "Simple"),
        (Self::Normal, "Normal"),
        (Self::Ddim, "DDIM"),
        (Self::Beta, "Beta"),
    ];

    /// Its label.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(each, _)| *each == self).map_or("", |(_, label)| label)
    }

    /// The one of this label ("SGM Uniform"), name ("sgm_uniform") or alias ("SGMUniform"), whatever its letter case.
    pub fn from_name(name: &str) -> Option<Self> {
        let same = |label: &str| {
            [label.to_owned(), label.replace(' ', "_"), label.replace(' ', "")]
                .iter()
                .any(|each| each.eq_ignore_ascii_case(name))
        };
        Self::ALL.iter().find(|(_, label)| same(label)).map(|(each, _)| *each)
    }

    /// Takes a schedule's name off the end of a joint one: "DPM++ 2M SGM Uniform" is "DPM++ 2M" and that.
    pub fn split_off(joint: &str) -> Option<(&str, Self)> {
        // The longest name that is one comes first.
        let mut ends = joint.match_indices(' ').filter_map(|(index, _)| {
            let (front, back) = (joint.get(..index)?, joint.get(index + 1..)?);
            Some((front, Self::from_name(back)?))
        });
        ends.next()
    }

    /// Whether the options' range of levels has an effect on it.
    pub fn has_range(self) -> bool {
        self.info().has_range
    }

    /// The exponent that it goes by if the options have none; `None` if they have no effect on it.
    pub fn rho(self) -> Option<f64> {
        self.info().rho
    }

    fn info(self) -> &'static ScheduleInfo {
        match self {
            Self::Automatic | Self::Uniform => &uniform::INFO,
            Self::Karras => &karras::INFO,
            Self::Exponential => &exponential::INFO,
            Self::Polyexponential => &polyexponential::INFO,
            Self::SgmUniform => &sgm_uniform::INFO,
            Self::KlOptimal => &kl_optimal::INFO,
            Self::AlignYourSteps => &align_your_steps::INFO,
            Self::Simple => &simple::INFO,
            Self::Normal => &normal::INFO,
            Self::Ddim => &ddim::INFO,
            Self::Beta => &beta::INFO,
        }
    }

    /// Levels of at least one step, falling; "Automatic" is uniform. Equal ones are one: with more steps than a model has
    /// levels some schedules name a level twice.
    pub(super) fn levels(
        self,
        steps: usize,
        model: &ModelSigmas,
        options: &SamplerOptions,
        rounding: Rounding,
    ) -> Result<Vec<f32>> {
        let info = self.info();
        let (min, max) = range(model, options);
        if info.has_range && min >= max {
            let text = format!(
                "sigma_min is {min} and sigma_max {max}; a schedule from the higher to the lower needs sigma_min below \
                 sigma_max (this model's own are {} and {})",
                model.min(),
                model.max()
            );
            return Err(Error::Request(text));
        }
        let rho = options.rho.or(info.rho).unwrap_or(1.0);
        let mut levels = (info.levels)(&Plan { steps, min, max, rho, rounding, model, options });
        levels.dedup();
        Ok(levels)
    }
}

/// The lowest and the highest level of a schedule.
fn range(model: &ModelSigmas, options: &SamplerOptions) -> (f64, f64) {
    let or = |wanted: Option<f64>, own: f32| wanted.unwrap_or(f64::from(own));
    (or(options.sigma_min, model.min()), or(options.sigma_max, model.max()))
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_labels_and_aliases_are_known() {
        for (name, wanted) in [
            ("karras", Schedule::Karras),
            ("SGM Uniform", Schedule::SgmUniform),
            ("sgm_uniform", Schedule::SgmUniform),
            ("SGMUniform", Schedule::SgmUniform),
            ("kl_optimal", Schedule::KlOptimal),
            ("align_your_steps", Schedule::AlignYourSteps),
            ("ddim", Schedule::Ddim),
        ] {
            assert_eq!(Schedule::from_name(name), Some(wanted), "{name}");
        }
        assert_eq!(Schedule::from_name("SGM"), None);
        let split = |joint| Schedule::split_off(joint);
        assert_eq!(split("DPM++ 2M SGM Uniform"), Some(("DPM++ 2M", Schedule::SgmUniform)));
        assert_eq!(split("DPM++ 2M Align Your Steps"), Some(("DPM++ 2M", Schedule::AlignYourSteps)));
        assert_eq!(split("DPM++ 2M sgm_uniform"), Some(("DPM++ 2M", Schedule::SgmUniform)));
        assert_eq!(split("DPM++ 2M"), None);
    }

    #[test]
    fn a_range_that_falls_is_refused() {
        let model = ModelSigmas::default();
        let options = SamplerOptions { sigma_min: Some(20.0), ..SamplerOptions::default() };
        for (schedule, _) in Schedule::ALL {
            let levels = schedule.levels(5, &model, &options, Rounding::Once);
            assert_eq!(levels.is_err(), schedule.has_range(), "{schedule}");
        }
        let error = Schedule::Karras.levels(5, &model, &options, Rounding::Once).expect_err("refused");
        assert!(error.to_string().contains("sigma_min is 20"), "{error}");
    }
}

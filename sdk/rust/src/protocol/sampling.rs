//! Choices of sampling.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What UniPC divides its coefficients by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UniPcVariant {
    /// B(h) = h.
    #[default]
    Bh1,
    /// B(h) = eʰ − 1.
    Bh2,
    /// A matrix of the steps instead.
    VaryCoeff,
}

impl UniPcVariant {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Bh1, Self::Bh2, Self::VaryCoeff];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bh1 => "bh1",
            Self::Bh2 => "bh2",
            Self::VaryCoeff => "vary_coeff",
        }
    }
}

/// What UniPC's steps are alike in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UniPcSkipType {
    /// Time.
    #[default]
    TimeUniform,
    /// The root of time.
    TimeQuadratic,
    /// The logarithm of the ratio of signal to noise.
    #[serde(rename = "logSNR")]
    LogSnr,
}

impl UniPcSkipType {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::TimeUniform, Self::TimeQuadratic, Self::LogSnr];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::TimeUniform => "time_uniform",
            Self::TimeQuadratic => "time_quadratic",
            Self::LogSnr => "logSNR",
        }
    }
}

/// The model's noise levels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NoiseSchedule {
    /// As its file has them.
    #[default]
    Default,
    /// Rescaled, so that its last timestep is noise alone: for models that were trained so.
    #[serde(rename = "Zero Terminal SNR")]
    ZeroTerminalSnr,
}

impl NoiseSchedule {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Default, Self::ZeroTerminalSnr];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "Default",
            Self::ZeroTerminalSnr => "Zero Terminal SNR",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_on_the_wire() {
        let json = |name: &str| format!("\"{name}\"");
        for each in UniPcVariant::ALL {
            assert_eq!(serde_json::to_string(&each).expect("a name"), json(each.name()));
        }
        for each in UniPcSkipType::ALL {
            assert_eq!(serde_json::to_string(&each).expect("a name"), json(each.name()));
        }
        for each in NoiseSchedule::ALL {
            assert_eq!(serde_json::to_string(&each).expect("a name"), json(each.name()));
        }
    }
}

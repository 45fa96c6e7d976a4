//! Noise, sigmas and samplers.

mod noise;
mod samplers;
mod schedule;

use std::fmt;

pub use noise::{NoiseGenerator, philox_4x32_10};
pub use samplers::{Denoise, sample};
pub use schedule::{ModelSigmas, Sigmas};

/// Where noise comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum NoiseSource {
    /// Philox, what a CUDA card draws; A1111's "NV".
    #[default]
    Nv,
    /// torch's Mersenne Twister; A1111's "CPU".
    Cpu,
}

impl NoiseSource {
    /// All of them with their wire names.
    pub const ALL: &[(Self, &'static str)] = &[(Self::Nv, "nv"), (Self::Cpu, "cpu")];
}

/// How the loop over sigmas goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampler {
    /// Euler.
    Euler,
    /// Euler, ancestral.
    EulerAncestral,
    /// DPM-Solver++ (2M).
    DpmPp2M,
    /// DDIM.
    Ddim,
    /// Heun.
    Heun,
}

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
}

impl Sampler {
    /// All of them with A1111's names.
    pub const ALL: &[(Self, &'static str)] = &[
        (Self::Euler, "Euler"),
        (Self::EulerAncestral, "Euler a"),
        (Self::DpmPp2M, "DPM++ 2M"),
        (Self::Ddim, "DDIM"),
        (Self::Heun, "Heun"),
    ];
}

impl Schedule {
    /// All of them with A1111's names.
    pub const ALL: &[(Self, &'static str)] = &[
        (Self::Automatic, "Automatic"),
        (Self::Uniform, "Uniform"),
        (Self::Karras, "Karras"),
        (Self::Exponential, "Exponential"),
    ];
}

macro_rules! named {
    ($($kind:ty),*) => {$(
        impl $kind {
            /// Its name.
            pub fn name(self) -> &'static str {
                Self::ALL.iter().find(|(each, _)| *each == self).map_or("", |(_, name)| name)
            }

            /// The one with this name, whatever its letter case.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().find(|(_, each)| each.eq_ignore_ascii_case(name)).map(|(each, _)| *each)
            }
        }

        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    )*};
}

named!(NoiseSource, Sampler, Schedule);

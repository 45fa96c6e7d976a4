//! Euler's method with CFG++.

use super::euler_ancestral_cfg_pp::{self, euler_ancestral_cfg_pp};
use crate::sampling::sampler::{SamplerInfo, StepNoise};

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "Euler CFG++",
    aliases: &["k_euler_cfg_pp"],
    noise: StepNoise::None,
    eta: None,
    run: euler_ancestral_cfg_pp,
    ..euler_ancestral_cfg_pp::INFO
};

//! DDIM with CFG++ (Chung et al. 2024), the guidance scale divided by 12.5 so that the usual ones fit.

use super::ddim;
use super::euler_ancestral_cfg_pp::euler_ancestral_cfg_pp;
use crate::sampling::sampler::SamplerInfo;

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "DDIM CFG++",
    aliases: &["k_ddim_cfg_pp", "ddim_cfgpp"],
    guidance_factor: 1.0 / 12.5,
    uses_uncond: true,
    run: euler_ancestral_cfg_pp,
    ..ddim::INFO
};

//! DPM-Solver++(2M) for the stochastic equation, with Heun's coefficient.

use super::dpmpp_2m_sde;
use crate::sampling::sampler::SamplerInfo;

pub(super) const INFO: SamplerInfo = SamplerInfo {
    name: "DPM++ 2M SDE Heun",
    aliases: &["k_dpmpp_2m_sde_heun"],
    run: |x, path, model| dpmpp_2m_sde::dpmpp_2m_sde(x, path, model, |h| (-h).exp_m1() / h + 1.0),
    ..dpmpp_2m_sde::INFO
};

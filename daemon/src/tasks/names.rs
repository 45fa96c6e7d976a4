//! From the names in a request to what they stand for.

use latentd_client::protocol::{Emphasis as WireEmphasis, Precision as WirePrecision, Rng, Txt2ImgParams};
use latentd_models::nn::Precision;
use latentd_models::prompt::{Emphasis, Reading};
use latentd_models::sampling::{NoiseSource, Sampler, Schedule};

use crate::error::{Class, Error, Result};
use crate::schema::shorten;
use crate::suggest::advice;

/// Old requests name both at once: "DPM++ 2M Karras", or "k_dpmpp_2m_ka".
pub(super) fn sampler_and_schedule(sampler: &str, schedule: &str) -> Result<(Sampler, Schedule)> {
    let given = Schedule::from_name(schedule)
        .ok_or_else(|| unknown("scheduler", schedule, Schedule::ALL.iter().map(|(_, name)| *name)))?;
    if let Some(sampler) = Sampler::from_name(sampler) {
        return Ok((sampler, given));
    }
    let split = Schedule::split_off(sampler)
        .or_else(|| sampler.strip_suffix("_ka").map(|front| (front, Schedule::Karras)));
    let joint = split.and_then(|(front, schedule)| Some((Sampler::from_name(front)?, schedule)));
    let (sampler, suffix) =
        joint.ok_or_else(|| unknown("sampler_name", sampler, Sampler::all().map(|sampler| sampler.name)))?;
    // A scheduler that is named on its own is the newer wish.
    Ok((sampler, if given == Schedule::Automatic { suffix } else { given }))
}

/// `None`: as the daemon is set.
pub(super) fn precision(wanted: WirePrecision) -> Result<Option<Precision>> {
    match wanted {
        WirePrecision::Auto => Ok(None),
        WirePrecision::F32 => Ok(Some(Precision::F32)),
        WirePrecision::Bf16 => Ok(Some(Precision::Bf16)),
        WirePrecision::F16 => {
            let text = "precision: 'f16' is not in this build; use auto, f32 or bf16";
            Err(Error::new(Class::Unsupported, text))
        }
    }
}

/// What was computed in, as a request asks for it.
pub(super) fn wire_precision(precision: Precision) -> WirePrecision {
    match precision {
        Precision::F32 => WirePrecision::F32,
        Precision::Bf16 => WirePrecision::Bf16,
    }
}

/// How a request's prompts are read.
pub(super) fn reading(params: &Txt2ImgParams) -> Reading {
    Reading {
        emphasis: match params.emphasis {
            WireEmphasis::Original => Emphasis::Original,
            WireEmphasis::None => Emphasis::None,
            WireEmphasis::Ignore => Emphasis::Ignore,
            WireEmphasis::NoNorm => Emphasis::NoNorm,
        },
        comma_padding_backtrack: params.comma_padding_backtrack as usize,
        use_old_scheduling: params.use_old_scheduling,
    }
}

pub(super) fn noise_source(rng: Rng) -> NoiseSource {
    match rng {
        Rng::Nv => NoiseSource::Nv,
        Rng::Cpu => NoiseSource::Cpu,
    }
}

pub(super) fn unknown<'a>(field: &str, given: &str, known: impl Iterator<Item = &'a str> + Clone) -> Error {
    let advice = advice(given, known.clone());
    let listed = known.collect::<Vec<_>>().join(", ");
    Error::invalid(format!("{field}: '{}' is not known; known: {listed}{advice}", shorten(given)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joint_names_are_split() {
        let rows = [
            ("Euler a", "Automatic", "Euler a", Schedule::Automatic),
            ("DPM++ 2M Karras", "Automatic", "DPM++ 2M", Schedule::Karras),
            ("DPM++ 2M Karras", "Exponential", "DPM++ 2M", Schedule::Exponential),
            ("euler", "karras", "Euler", Schedule::Karras),
            ("DPM++ 2M SGM Uniform", "Automatic", "DPM++ 2M", Schedule::SgmUniform),
            (
                "DPM++ 2M SDE Heun Align Your Steps",
                "automatic",
                "DPM++ 2M SDE Heun",
                Schedule::AlignYourSteps,
            ),
            ("k_dpmpp_2m_ka", "Automatic", "DPM++ 2M", Schedule::Karras),
        ];
        for (sampler, schedule, wanted_sampler, wanted_schedule) in rows {
            let found = sampler_and_schedule(sampler, schedule).expect("known");
            assert_eq!((found.0.name, found.1), (wanted_sampler, wanted_schedule), "{sampler}");
        }
        for (sampler, (schedule, _)) in
            Sampler::all().flat_map(|each| Schedule::ALL.iter().map(move |s| (each, s)))
        {
            let joint = format!("{sampler} {schedule}");
            assert_eq!(sampler_and_schedule(&joint, "Automatic"), Ok((sampler, *schedule)), "{joint}");
        }
        let error = sampler_and_schedule("Eular a", "Automatic").expect_err("refused");
        assert!(error.text.contains("did you mean 'Euler a'?"), "{error}");
    }

    #[test]
    fn what_this_build_cannot_compute_in_is_refused() {
        assert!(precision(WirePrecision::F16).is_err_and(|error| error.class == Class::Unsupported));
        assert_eq!(precision(WirePrecision::Auto), Ok(None));
    }
}

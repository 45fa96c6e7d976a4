//! From a request's fields to what the models take: everything that can be refused before a job's turn.

use std::path::{Path, PathBuf};

use latentd_client::protocol::{ErrorName, OutputFormat, Precision, Rng, Txt2ImgParams, WireError};
use latentd_models::sampling::{NoiseSource, Sampler, Schedule};

use crate::schema::shorten;
use crate::suggest::nearest;

/// Pixels per side when a request gives none.
const DEFAULT_SIDE: u32 = 512;

/// What a request may ask for beyond its fields' own ranges.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlanLimits {
    /// Bytes of the pixels of all its pictures.
    pub result_bytes: u64,
}

/// A request that can be drawn, as far as can be told without the model.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    pub width: usize,
    pub height: usize,
    pub sampler: Sampler,
    pub schedule: Schedule,
    pub rng: NoiseSource,
    pub format: OutputFormat,
    /// The folder for files, where one is named.
    pub dir: Option<PathBuf>,
}

impl Plan {
    /// Reads a request whose fields are in their ranges.
    pub(crate) fn new(params: &Txt2ImgParams, limits: PlanLimits) -> Result<Self, WireError> {
        let (sampler, schedule) = sampler_and_schedule(&params.sampler_name, &params.scheduler)?;
        check_precision(params.precision)?;
        check_format(params.output.format)?;
        let (width, height) = (params.width.unwrap_or(DEFAULT_SIDE), params.height.unwrap_or(DEFAULT_SIDE));
        let pictures = u64::from(params.batch_size) * u64::from(params.n_iter);
        let bytes = u64::from(width) * u64::from(height) * 3 * pictures;
        if bytes > limits.result_bytes {
            return Err(invalid(format!(
                "{pictures} pictures of {width}×{height} are {bytes} bytes, {} are allowed; lower n_iter or batch_size",
                limits.result_bytes
            )));
        }
        Ok(Self {
            width: width as usize,
            height: height as usize,
            sampler,
            schedule,
            rng: match params.rng {
                Rng::Nv => NoiseSource::Nv,
                Rng::Cpu => NoiseSource::Cpu,
            },
            format: params.output.format,
            dir: params.output.dir.as_deref().map(output_dir).transpose()?,
        })
    }
}

/// Old requests name both at once: "DPM++ 2M Karras".
fn sampler_and_schedule(sampler: &str, schedule: &str) -> Result<(Sampler, Schedule), WireError> {
    let given = Schedule::from_name(schedule)
        .ok_or_else(|| unknown("scheduler", schedule, Schedule::ALL.iter().map(|(_, name)| *name)))?;
    if let Some(sampler) = Sampler::from_name(sampler) {
        return Ok((sampler, given));
    }
    let joint = sampler
        .rsplit_once(' ')
        .and_then(|(front, suffix)| Some((Sampler::from_name(front)?, Schedule::from_name(suffix)?)));
    let (sampler, suffix) =
        joint.ok_or_else(|| unknown("sampler_name", sampler, Sampler::ALL.iter().map(|(_, name)| *name)))?;
    // A scheduler that is named on its own is the newer wish.
    Ok((sampler, if given == Schedule::Automatic { suffix } else { given }))
}

fn check_precision(precision: Precision) -> Result<(), WireError> {
    let name = match precision {
        Precision::Auto | Precision::F32 => return Ok(()),
        Precision::Bf16 => "bf16",
        Precision::F16 => "f16",
    };
    let text = format!("precision: '{name}' is not in this build; use auto or f32");
    Err(WireError::new(ErrorName::Unsupported, text))
}

fn check_format(format: OutputFormat) -> Result<(), WireError> {
    let name = match format {
        OutputFormat::Png | OutputFormat::Raw | OutputFormat::File => return Ok(()),
        OutputFormat::Jpeg => "jpeg",
        OutputFormat::Webp => "webp",
    };
    let text = format!("output.format: '{name}' is not in this build; use png, raw or file");
    Err(WireError::new(ErrorName::Unsupported, text))
}

fn output_dir(dir: &str) -> Result<PathBuf, WireError> {
    let path = Path::new(dir);
    if !path.is_absolute() {
        return Err(invalid(format!("output.dir: '{}' must be an absolute path", shorten(dir))));
    }
    if !path.is_dir() {
        return Err(invalid(format!("output.dir: '{}' is no folder; make it first", shorten(dir))));
    }
    Ok(path.to_owned())
}

fn unknown<'a>(field: &str, given: &str, known: impl Iterator<Item = &'a str> + Clone) -> WireError {
    let meant = nearest(given, known.clone()).unwrap_or_default();
    let listed = known.collect::<Vec<_>>().join(", ");
    invalid(format!("{field}: '{}' is not known; did you mean '{meant}'? known: {listed}", shorten(given)))
}

fn invalid(text: String) -> WireError {
    WireError::new(ErrorName::InvalidParams, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joint_names_are_split() {
        let rows = [
            ("Euler a", "Automatic", Sampler::EulerAncestral, Schedule::Automatic),
            ("DPM++ 2M Karras", "Automatic", Sampler::DpmPp2M, Schedule::Karras),
            ("DPM++ 2M Karras", "Exponential", Sampler::DpmPp2M, Schedule::Exponential),
            ("euler", "karras", Sampler::Euler, Schedule::Karras),
        ];
        for (sampler, schedule, wanted_sampler, wanted_schedule) in rows {
            assert_eq!(
                sampler_and_schedule(sampler, schedule),
                Ok((wanted_sampler, wanted_schedule)),
                "{sampler}"
            );
        }
        let error = sampler_and_schedule("Eular a", "Automatic").expect_err("refused");
        assert!(error.text.contains("did you mean 'Euler a'?"), "{error}");
    }

    #[test]
    fn what_cannot_be_drawn_is_refused_early() {
        let limits = PlanLimits { result_bytes: 1 << 20 };
        let small = || Txt2ImgParams { width: Some(64), height: Some(64), ..Default::default() };
        assert!(Plan::new(&small(), limits).is_ok());
        let mut many = small();
        many.n_iter = 100;
        assert!(Plan::new(&many, limits).is_err_and(|error| error.text.contains("lower n_iter")));
        let mut jpeg = small();
        jpeg.output.format = OutputFormat::Jpeg;
        assert!(Plan::new(&jpeg, limits).is_err_and(|error| error.name == ErrorName::Unsupported));
        let mut half = small();
        half.precision = Precision::F16;
        assert!(Plan::new(&half, limits).is_err_and(|error| error.name == ErrorName::Unsupported));
        let mut elsewhere = small();
        elsewhere.output.dir = Some("relative".into());
        assert!(Plan::new(&elsewhere, limits).is_err_and(|error| error.text.contains("absolute")));
    }
}

//! From a request's fields to what the models take: everything that can be refused before a job's turn.

use std::path::{Path, PathBuf};

use latentd_client::protocol::{OutputFormat, Precision as WirePrecision, Rng, Txt2ImgParams};
use latentd_models::nn::Precision;
use latentd_models::pipeline::Model;
use latentd_models::sampling::{NoiseSource, Sampler, Schedule};

use crate::error::{Class, Error, Result};
use crate::schema::shorten;
use crate::suggest::nearest;

/// What a request may ask for beyond its fields' own ranges.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlanLimits {
    /// Bytes of the pixels of all its pictures.
    pub result_bytes: u64,
}

/// A request that can be drawn, as far as can be told without the model.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    /// Pixels in a row; the model's own if `None`.
    width: Option<u32>,
    /// Rows; the model's own if `None`.
    height: Option<u32>,
    pictures: u64,
    result_bytes: u64,
    /// The daemon's own if `None`.
    pub precision: Option<Precision>,
    pub sampler: Sampler,
    pub schedule: Schedule,
    pub rng: NoiseSource,
    pub format: OutputFormat,
    /// The folder for files, where one is named.
    pub dir: Option<PathBuf>,
}

impl Plan {
    /// Reads a request whose fields are in their ranges.
    pub(crate) fn new(params: &Txt2ImgParams, limits: PlanLimits) -> Result<Self> {
        let (sampler, schedule) = sampler_and_schedule(&params.sampler_name, &params.scheduler)?;
        check_format(params.output.format)?;
        let plan = Self {
            width: params.width,
            height: params.height,
            pictures: u64::from(params.batch_size) * u64::from(params.n_iter),
            result_bytes: limits.result_bytes,
            precision: precision(params.precision)?,
            sampler,
            schedule,
            rng: match params.rng {
                Rng::Nv => NoiseSource::Nv,
                Rng::Cpu => NoiseSource::Cpu,
            },
            format: params.output.format,
            dir: params.output.dir.as_deref().map(output_dir).transpose()?,
        };
        // What is too much for the model with the smallest pictures is too much for every model.
        let smallest = *Model::NATIVE_SIDES.start();
        plan.size((smallest, smallest))?;
        Ok(plan)
    }

    /// Width and height of the pictures in pixels, with those of the model, `native`, where the request names none.
    pub(crate) fn size(&self, native: (usize, usize)) -> Result<(usize, usize)> {
        let given = |side: Option<u32>| side.map(|side| side as usize);
        let (width, height) = (given(self.width).unwrap_or(native.0), given(self.height).unwrap_or(native.1));
        let (pictures, allowed) = (self.pictures, self.result_bytes);
        let bytes = (width as u64) * (height as u64) * 3 * pictures;
        if bytes > allowed {
            return Err(Error::invalid(format!(
                "{pictures} pictures of {width}×{height} are {bytes} bytes, {allowed} are allowed; lower n_iter or \
                 batch_size"
            )));
        }
        Ok((width, height))
    }
}

/// Old requests name both at once: "DPM++ 2M Karras".
fn sampler_and_schedule(sampler: &str, schedule: &str) -> Result<(Sampler, Schedule)> {
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

fn precision(wanted: WirePrecision) -> Result<Option<Precision>> {
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

fn check_format(format: OutputFormat) -> Result<()> {
    let name = match format {
        OutputFormat::Png | OutputFormat::Raw | OutputFormat::File => return Ok(()),
        OutputFormat::Jpeg => "jpeg",
        OutputFormat::Webp => "webp",
    };
    let text = format!("output.format: '{name}' is not in this build; use png, raw or file");
    Err(Error::new(Class::Unsupported, text))
}

fn output_dir(dir: &str) -> Result<PathBuf> {
    let path = Path::new(dir);
    if !path.is_absolute() {
        return Err(Error::invalid(format!("output.dir: '{}' must be an absolute path", shorten(dir))));
    }
    if !path.is_dir() {
        return Err(Error::invalid(format!("output.dir: '{}' is no folder; make it first", shorten(dir))));
    }
    Ok(path.to_owned())
}

fn unknown<'a>(field: &str, given: &str, known: impl Iterator<Item = &'a str> + Clone) -> Error {
    let meant = nearest(given, known.clone()).unwrap_or_default();
    let listed = known.collect::<Vec<_>>().join(", ");
    Error::invalid(format!(
        "{field}: '{}' is not known; did you mean '{meant}'? known: {listed}",
        shorten(given)
    ))
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
        let unsized_many = |n_iter| Plan::new(&Txt2ImgParams { n_iter, ..Default::default() }, limits);
        assert!(unsized_many(100).is_err_and(|error| error.text.contains("lower n_iter")));
        let few = unsized_many(20).expect("may be small enough");
        assert_eq!(few.size((128, 128)), Ok((128, 128)));
        assert!(few.size((192, 128)).is_err_and(|error| error.text.contains("20 pictures of 192×128")));
        let wide =
            Plan::new(&Txt2ImgParams { width: Some(96), ..Default::default() }, limits).expect("sound");
        assert_eq!(wide.size((128, 64)), Ok((96, 64)));
        let mut jpeg = small();
        jpeg.output.format = OutputFormat::Jpeg;
        assert!(Plan::new(&jpeg, limits).is_err_and(|error| error.class == Class::Unsupported));
        let mut half = small();
        half.precision = WirePrecision::F16;
        assert!(Plan::new(&half, limits).is_err_and(|error| error.class == Class::Unsupported));
        let mut elsewhere = small();
        elsewhere.output.dir = Some("relative".into());
        assert!(Plan::new(&elsewhere, limits).is_err_and(|error| error.text.contains("absolute")));
    }
}

//! `image.upscale`: pictures made larger, and faces in them restored, as A1111's "Extras" do it (`scripts/postprocessing_*.py`).
//!
//! [`plan`] settles by what and how far, and what that takes; [`work`] does it, [`told`] says so in the picture's texts.

mod plan;
mod told;
mod work;

use std::sync::Arc;
use std::time::Instant;

use latentd_client::protocol::{ImageIn, OnDisconnect, UpscaleParams, UpscaleResult};
use latentd_models::image::{Beside, Picture, Sample};
use latentd_models::nn::Precision;
use latentd_models::sampling::NoiseSource;

pub(super) use self::plan::{Found, find};
use self::plan::{Plan, Shape};
use self::told::Texts;
use self::work::Steps;
pub(super) use self::work::{By, filled};
use super::beside;
use super::device::DeviceId;
use super::given::{Given, Sources};
use super::notices::Notices;
use super::output::Output;
use super::packing::Packing;
use super::plugins::Asking;
use super::studio::Studio;
use super::task::{JobMethod, Run, Watch};
use crate::error::{Class, Error, Result};
use crate::plugins::Alone;

/// A request with everything settled.
pub(crate) struct Upscale {
    studio: Arc<Studio>,
    pictures: Vec<One>,
    plan: Plan,
    output: Output,
    /// As plugins are told of it: MessagePack.
    request: Vec<u8>,
    strict: bool,
    notices: Vec<String>,
    steps: u32,
}

/// One picture. It is kept as it was given, and decoded in its turn.
struct One {
    field: String,
    given: Given,
    shape: Shape,
    texts: Texts,
}

impl JobMethod for Upscale {
    const NAME: &'static str = "image.upscale";
    type Params = UpscaleParams;
    type Result = UpscaleResult;

    fn on_disconnect(params: &UpscaleParams) -> OnDisconnect {
        params.on_disconnect
    }

    fn resolve(mut params: UpscaleParams, studio: &Arc<Studio>, watch: &dyn Watch) -> Result<Self> {
        let sources = Sources::of(studio);
        let output = Output::resolve(&params.output, &studio.outputs_dir, &studio.folders)?;
        let mut notices = Notices::new(params.strict);
        let given = given(&mut params, &sources)?;
        let asking = asking(studio, watch, &params);
        let plan = Plan::resolve(&params, studio, &asking, &mut notices)?;
        let (mut pictures, mut steps) = (vec![], 0u64);
        for (field, given) in given {
            let shape = Shape::of(&given, &field)?;
            plan.check(&shape, &field)?;
            let texts = Texts::of(&given, &plan.told(&shape), &field)?;
            if let Some(text) = texts.infotext.as_deref() {
                output
                    .check_infotext(text)
                    .map_err(|error| Error::invalid(format!("output.format: {error}")))?;
            }
            steps += plan.steps(&shape);
            pictures.push(One { field, given, shape, texts });
        }
        let settings = studio.settings.get();
        let all: u64 = pictures.iter().map(|one| plan.result_bytes(&one.shape)).sum();
        if all > settings.result_bytes {
            return Err(Error::invalid(format!(
                "the results are {all} bytes of pixels, {} are allowed; give fewer pictures, a smaller scale, or raise \
                 result_bytes",
                settings.result_bytes
            )));
        }
        let most = pictures.iter().map(|one| plan.bytes(&one.shape).most).max().unwrap_or_default();
        let (needed, budget) =
            (most.saturating_add(all).saturating_add(plan.planned_bytes()), studio.device.memory.budget());
        if needed > budget {
            return Err(Error::new(
                Class::Memory,
                format!(
                    "'image.upscale' needs {needed} bytes, the budget is {budget}; raise memory_bytes, give smaller tiles or a \
                     smaller scale"
                ),
            ));
        }
        params.image = None;
        params.images = pictures.iter().map(|one| ImageIn::blob(one.given.keep(&sources))).collect();
        let request = rmp_serde::to_vec_named(&params)
            .map_err(|error| Error::internal(format!("the request cannot be told to plugins: {error}")))?;
        drop(asking);
        Ok(Self {
            studio: Arc::clone(studio),
            pictures,
            plan,
            output,
            request,
            strict: params.strict,
            notices: notices.into_texts(),
            steps: u32::try_from(steps).unwrap_or(u32::MAX).max(1),
        })
    }

    fn device(&self) -> DeviceId {
        self.studio.device.id
    }

    fn steps(&self) -> u32 {
        self.steps
    }

    fn run(&self, run: &Run<'_>) -> Result<UpscaleResult> {
        let started = Instant::now();
        let cancelled = || run.watch.is_cancelled();
        let memory = &run.device.memory;
        let asking = Asking::new(run.watch, memory, &self.studio, NoiseSource::default());
        let asking = asking.in_precision(self.studio.settings.get().precision);
        let pictures = u32::try_from(self.pictures.len()).unwrap_or(u32::MAX);
        let method = (Self::NAME, &self.request[..]);
        let alone = Alone::new(method, pictures, self.plan.engines(), &asking);
        let mut packing =
            Packing::new(&self.output, &self.studio.outputs_dir, &self.studio.folders, run.job, &cancelled);
        let mut steps = Steps::new(run.watch, self.steps);
        let (mut images, mut beside) = (vec![], beside::Beside::default());
        let mut notices = self.notices.clone();
        for (index, one) in self.pictures.iter().enumerate() {
            let _room = memory.reserve_for_job(self.plan.bytes(&one.shape).held, Self::NAME, &cancelled)?;
            let file = one.texts.beside();
            let image = if one.shape.deep {
                self.one(one.decoded_deep(&self.studio)?, &alone, &mut steps, (&mut packing, &file, index))?
            } else {
                self.one(one.decoded(&self.studio)?, &alone, &mut steps, (&mut packing, &file, index))?
            };
            images.push(latentd_client::protocol::ImageOut { infotext: Some(one.texts.told()), ..image });
            beside.add(alone.artifacts());
            beside.pack(&mut packing, |_| index)?;
            for (plugin, text) in alone.notices() {
                let text = format!("plugin '{plugin}': {text}");
                if self.strict {
                    return Err(Error::new(Class::Plugin, format!("{text}; without `strict` it is told")));
                }
                if !notices.contains(&text) {
                    notices.push(text);
                }
            }
        }
        notices.extend(beside.left_out());
        let plugin_timings = alone.spent().into_iter().collect();
        drop(alone);
        notices.extend(packing.finish()?);
        Ok(UpscaleResult {
            images,
            job: run.job.to_owned(),
            total_s: started.elapsed().as_secs_f64(),
            plugin_timings,
            plugin_log: asking.log(),
            artifacts: beside.packed,
            notices,
        })
    }
}

impl Upscale {
    /// Makes one picture, whatever its bits, and packs it.
    fn one<S: Sample>(
        &self,
        picture: Picture<S>,
        alone: &Alone<'_>,
        steps: &mut Steps<'_>,
        (packing, file, index): (&mut Packing<'_>, &Beside<'_>, usize),
    ) -> Result<latentd_client::protocol::ImageOut> {
        let made = work::made(&self.plan, alone, picture, steps)?;
        packing.pack_beside(made, file, index)
    }
}

impl One {
    fn decoded(&self, studio: &Studio) -> Result<Picture> {
        let orientation = self.given.orientation(&self.field)?;
        let work = |picture: Picture| picture.oriented(orientation);
        self.given.decoded(&self.field, &Sources::of(studio), work)
    }

    fn decoded_deep(&self, studio: &Studio) -> Result<Picture<u16>> {
        let orientation = self.given.orientation(&self.field)?;
        Ok(self.given.decoded_deep(&self.field, &Sources::of(studio))?.oriented(orientation)?)
    }
}

/// The pictures, with the fields that they stand in.
fn given(params: &mut UpscaleParams, sources: &Sources) -> Result<Vec<(String, Given)>> {
    let several = std::mem::take(&mut params.images);
    match (params.image.take(), several) {
        (Some(image), several) if several.is_empty() => {
            Ok(vec![("image".to_owned(), Given::new("image", image, sources)?)])
        }
        (Some(_), _) => Err(Error::invalid("images: there is an `image` too; give one of both")),
        (None, several) if several.is_empty() => {
            Err(Error::invalid("image: is missing; give a picture, or several as `images`"))
        }
        (None, several) => {
            let all = several.into_iter().enumerate().map(|(place, image)| {
                let field = format!("images[{place}]");
                let given = Given::new(&field, image, sources)?;
                Ok((field, given))
            });
            all.collect()
        }
    }
}

fn asking<'a>(studio: &'a Arc<Studio>, watch: &'a dyn Watch, params: &UpscaleParams) -> Asking<'a> {
    let asking = Asking::new(watch, &studio.device.memory, studio, NoiseSource::default());
    asking.in_precision(Precision::F32).with_versions(params.plugin_versions.clone())
}

//! What a job draws: a request, or, where plugins made several of it, those one after the other.

use std::sync::Arc;
use std::time::Instant;

use latentd_client::protocol::{
    ImageIn, ImageOut, Masks, Pass, PluginProgress, Timings, Txt2ImgParams, Txt2ImgResult,
};

use super::device::DeviceId;
use super::draw::{Begun, Draw, Within};
use super::given::{Given, Sources};
use super::packing::Packing;
use super::plugins::MOST_LOGGED;
use super::rewriting::{Rewritten, rewritten};
use super::studio::Studio;
use super::task::{Run, Watch};
use crate::error::{Error, Result};

/// Requests with everything settled, one or more.
pub(super) struct Draws {
    first: Draw,
    more: Vec<Draw>,
}

impl Draws {
    /// Has a request rewritten by its plugins, and settles everything of what becomes of it.
    pub(super) fn resolve(
        params: Txt2ImgParams,
        begun: Option<Begun>,
        studio: &Arc<Studio>,
        watch: &dyn Watch,
    ) -> Result<Self> {
        let method = begun.as_ref().map_or("txt2img", Begun::method);
        let (requests, by) = rewritten(params, method, studio, watch)?;
        let begun = match begun {
            Some(begun) if requests.len() > 1 => Some(for_several(begun, studio)?),
            begun => begun,
        };
        let resolve = |request: Rewritten, begun: Option<Begun>| {
            let made = request.made;
            let draw = Draw::resolve(request, begun, studio, watch, Within::default());
            draw.and_then(|draw| draw.with_subjobs((studio, watch), &[]))
                .map_err(|error| made.error(error, &by))
        };
        let mut requests = requests.into_iter();
        let first = requests.next().ok_or_else(|| Error::internal("nothing is to be drawn"))?;
        let first = resolve(first, begun.clone())?;
        let more = requests.map(|request| resolve(request, begun.clone())).collect::<Result<Vec<_>>>()?;
        let bytes: u64 =
            more.iter().fold(first.result_bytes, |sum, draw| sum.saturating_add(draw.result_bytes));
        let allowed = studio.settings.get().result_bytes;
        if bytes > allowed {
            return Err(Error::invalid(format!(
                "the pictures of {} requests, which {} made of one, are {bytes} bytes, {allowed} are allowed; ask for fewer",
                1 + more.len(),
                by.join(" and ")
            )));
        }
        Ok(Self { first, more })
    }

    fn all(&self) -> impl Iterator<Item = &Draw> {
        std::iter::once(&self.first).chain(&self.more)
    }

    pub(super) fn device(&self) -> DeviceId {
        self.first.device()
    }

    pub(super) fn steps(&self) -> u32 {
        self.all().fold(0, |sum, draw| sum.saturating_add(draw.steps()))
    }

    /// Draws them all; their pictures come one after the other.
    pub(super) fn run(&self, run: &Run<'_>) -> Result<Txt2ImgResult> {
        let started = Instant::now();
        let cancelled = || run.watch.is_cancelled();
        let Studio { outputs_dir, folders, .. } = &*self.first.studio;
        let mut packing = Packing::new(&self.first.output, outputs_dir, folders, run.job, &cancelled);
        let mut result: Option<Txt2ImgResult> = None;
        let mut before = 0;
        for draw in self.all() {
            let watch = Part { watch: run.watch, before, all: self.steps() };
            let waited_s = if before == 0 { run.waited_s } else { 0.0 };
            let part = Run { job: run.job, waited_s, device: run.device, watch: &watch };
            let first = result.as_ref().map_or((0, 0), |all| (all.images.len(), all.artifacts.len()));
            let drawn = draw.run(&part, first, &mut packing)?;
            before = before.saturating_add(draw.steps());
            match &mut result {
                Some(result) => join(result, drawn),
                None => result = Some(drawn),
            }
        }
        let mut result = result.ok_or_else(|| Error::internal("nothing was drawn"))?;
        result.notices.extend(packing.finish()?);
        result.timings.total_s = started.elapsed().as_secs_f64();
        Ok(result)
    }
}

/// Adds what was drawn next.
fn join(all: &mut Txt2ImgResult, drawn: Txt2ImgResult) {
    let Txt2ImgResult { images, job: _, precision, timings, plugin_timings, plugin_log, artifacts, notices } =
        drawn;
    all.plugin_log.extend(plugin_log);
    all.plugin_log.truncate(MOST_LOGGED);
    all.images.extend(images);
    all.artifacts.extend(artifacts);
    all.precision = precision;
    all.timings = Timings {
        queue_s: all.timings.queue_s + timings.queue_s,
        load_s: all.timings.load_s + timings.load_s,
        conditioning_s: all.timings.conditioning_s + timings.conditioning_s,
        denoise_s: all.timings.denoise_s + timings.denoise_s,
        decode_s: all.timings.decode_s + timings.decode_s,
        total_s: all.timings.total_s + timings.total_s,
    };
    for (plugin, seconds) in plugin_timings {
        *all.plugin_timings.entry(plugin).or_default() += seconds;
    }
    for text in notices {
        if !all.notices.contains(&text) {
            all.notices.push(text);
        }
    }
}

/// What several requests begin with: the one picture by its name, which each has.
fn for_several(begun: Begun, studio: &Studio) -> Result<Begun> {
    let sources = Sources::of(studio);
    let named = |field: &str, image: ImageIn| -> Result<ImageIn> {
        Ok(ImageIn::blob(Given::new(field, image, &sources)?.keep(&sources)))
    };
    let one = |field: &str, count: usize| match count {
        0 | 1 => Ok(()),
        _ => Err(Error::invalid(format!(
            "{field}: there are {count}, and plugins make several requests of this one, each of which would begin with the \
             first; give one, or ask for one picture at a time"
        ))),
    };
    Ok(match begun {
        Begun::Pictures(mut begun) => {
            one("init_images", begun.init_images.len())?;
            one("mask", begun.mask.as_ref().map_or(0, |masks| masks.images().len()))?;
            let images = std::mem::take(&mut begun.init_images).into_iter();
            begun.init_images = images.map(|image| named("init_images[0]", image)).collect::<Result<_>>()?;
            begun.mask = match begun.mask {
                Some(Masks::All(mask)) => Some(Masks::All(named("mask", mask)?)),
                Some(Masks::Each(masks)) => {
                    let masks = masks.into_iter().map(|mask| named("mask[0]", mask));
                    Some(Masks::Each(masks.collect::<Result<_>>()?))
                }
                None => None,
            };
            Begun::Pictures(begun)
        }
        Begun::Continued(mut begun) => {
            begun.image = named("image", begun.image)?;
            Begun::Continued(begun)
        }
    })
}

/// Who follows a job, of one of its requests.
struct Part<'a> {
    watch: &'a dyn Watch,
    /// Steps of the requests before it, and of all.
    before: u32,
    all: u32,
}

impl Watch for Part<'_> {
    fn is_cancelled(&self) -> bool {
        self.watch.is_cancelled()
    }

    fn progress_of(&self, pass: Option<Pass>, stage: &str, (step, steps): (u32, u32), eta_s: Option<f64>) {
        let done = self.before.saturating_add(step);
        let all = self.all.max(self.before.saturating_add(steps));
        // What is left here says how long a step takes; there is more to do than it knows of.
        let here = steps.saturating_sub(step);
        let eta_s = eta_s.filter(|_| here > 0 || done == all);
        let eta_s = eta_s.map(|eta| eta / f64::from(here.max(1)) * f64::from(all.saturating_sub(done)));
        self.watch.progress_of(pass, stage, (done, all), eta_s);
    }

    fn preview(&self, pass: Pass, step: u32, image: ImageOut) {
        self.watch.preview(pass, self.before.saturating_add(step), image);
    }

    fn plugin_progress(&self, progress: PluginProgress) {
        self.watch.plugin_progress(progress);
    }

    fn plugin_preview(&self, plugin: &str, image: ImageOut) {
        self.watch.plugin_preview(plugin, image);
    }
}

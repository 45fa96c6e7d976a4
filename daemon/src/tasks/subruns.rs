//! Jobs within a job while it is drawn: on its thread, with its networks in nobody's way.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use latentd_client::protocol::{ImageIn, ImageOut, PluginLine, Txt2ImgResult};

use super::draw::{Draw, Planned};
use super::packing::Packing;
use super::plugins::MOST_LOGGED;
use super::studio::Studio;
use super::subcourse::{Along, Nested};
use super::subjobs::{Around, find};
use super::subrequest::{Asked, Method, Pictures, SubRequest};
use super::task::{Run, Watch};
use crate::error::{Class, Error, Result};
use crate::plugins::{Image, SubImage, SubJob, SubJobs, SubPicture, SubPictures};

/// Runs of what was not planned, of one plugin in one job.
const MOST_UNPLANNED: u32 = 256;

/// What was drawn within a request.
#[derive(Clone, Debug, Default)]
pub(super) struct Drawn {
    /// How often, by whose it is and its number.
    runs: BTreeMap<(String, u32), u32>,
    /// Steps.
    pub steps: u32,
    /// Seconds that plugins took there, and lines that they logged.
    pub spent: BTreeMap<String, f64>,
    pub log: Vec<PluginLine>,
}

/// Who draws what plugins ask for within a job.
pub(super) struct SubRuns<'a> {
    around: Around<'a>,
    planned: &'a [Planned],
    studio: &'a Arc<Studio>,
    run: &'a Run<'a>,
    along: &'a Along<'a>,
    drawn: Mutex<Drawn>,
}

impl<'a> SubRuns<'a> {
    /// Where so much was drawn before.
    pub(super) fn new(
        (around, planned): (Around<'a>, &'a [Planned]),
        studio: &'a Arc<Studio>,
        (run, along): (&'a Run<'a>, &'a Along<'a>),
        before: &Drawn,
    ) -> Self {
        let drawn = Mutex::new(Drawn { spent: BTreeMap::new(), log: vec![], ..before.clone() });
        Self { around, planned, studio, run, along, drawn }
    }

    /// What was drawn, with what was before.
    pub(super) fn drawn(&self) -> Drawn {
        Drawn { steps: self.along.within(), ..std::mem::take(&mut *self.lock()) }
    }

    fn lock(&self) -> MutexGuard<'_, Drawn> {
        self.drawn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a run of what was planned, or was not.
    fn begin(&self, plugin: &str, key: u32, planned: Option<&Planned>) -> Result<()> {
        let most = planned.map_or(MOST_UNPLANNED, |planned| planned.most);
        let mut drawn = self.lock();
        let runs = drawn.runs.entry((plugin.to_owned(), key)).or_default();
        if *runs >= most {
            return Err(Error::invalid(match planned {
                Some(_) => format!("sub-job {key} was run {most} times, which is the most that was planned"),
                None => format!("{most} sub-jobs that were not planned were run; no more are possible"),
            }));
        }
        *runs += 1;
        Ok(())
    }

    /// The one that was planned with this number.
    fn planned(&self, plugin: &str, key: u32) -> Result<Option<&'a Planned>> {
        if key == 0 {
            return Ok(None);
        }
        if let Some(planned) = find(self.planned, plugin, key) {
            return Ok(Some(planned));
        }
        let keys = self.planned.iter().filter(|planned| planned.plugin == plugin);
        let keys: Vec<String> = keys.map(|planned| planned.key.to_string()).collect();
        let there = if keys.is_empty() { "none was".to_owned() } else { keys.join(", ") };
        Err(Error::invalid(format!("sub-job {key} was not planned: {there}")))
    }

    /// Resolves it with what was planned, and draws it.
    fn draw_one(
        &self,
        (asked, seeds): (Asked, &[(u64, u64)]),
        planned: Option<&Draw>,
        watch: &dyn Watch,
    ) -> Result<SubPictures> {
        let draw = self.around.whole(asked, seeds, planned, (self.studio, watch))?;
        let run = Run { job: self.run.job, waited_s: 0.0, device: self.run.device, watch };
        let cancelled = || watch.is_cancelled();
        let Studio { outputs_dir, folders, .. } = &**self.studio;
        let mut packing = Packing::new(&draw.output, outputs_dir, folders, run.job, &cancelled);
        let Txt2ImgResult { images, plugin_timings, plugin_log, mut notices, .. } =
            draw.run(&run, (0, 0), &mut packing)?;
        notices.extend(packing.finish()?);
        let mut drawn = self.lock();
        for (plugin, seconds) in plugin_timings {
            *drawn.spent.entry(plugin).or_default() += seconds;
        }
        drawn.log.extend(plugin_log);
        drawn.log.truncate(MOST_LOGGED);
        let pictures = images.into_iter().map(picture).collect::<Result<_>>()?;
        let of_plan = planned.iter().flat_map(|planned| planned.notices.clone());
        let of_plan = of_plan.filter(|notice| !notices.contains(notice)).collect::<Vec<_>>();
        Ok(SubPictures { pictures, notices: of_plan.into_iter().chain(notices).collect() })
    }
}

impl SubJobs for SubRuns<'_> {
    fn draw(&self, plugin: &str, asked: SubJob, told: &(dyn Fn(f64) + Sync)) -> Result<Result<SubPictures>> {
        let SubJob { key, method, patch, images } = asked;
        let planned = self.planned(plugin, key)?;
        let request = match planned {
            Some(planned) if images.len() > planned.batch as usize => {
                let (count, batch) = (images.len(), planned.batch);
                let text = format!("{count} images; sub-job {key} was planned for {batch} at a time");
                return Err(Error::invalid(text));
            }
            Some(planned) => planned.request.changed(&patch)?,
            None => self.around.subrequest(&method, &patch, (plugin, &[]))?,
        };
        let seeds: Vec<(u64, u64)> = images.iter().map(|image| (image.seed, image.subseed)).collect();
        let asked = asked_of(&request, images)?;
        self.begin(plugin, key, planned)?;
        let (nested, begun) = (Nested::new(self.along, told), Instant::now());
        let drawn = asked
            .and_then(|asked| self.draw_one((asked, &seeds), planned.map(|planned| &planned.draw), &nested));
        let steps = planned.map_or(0, |planned| planned.draw.steps());
        nested.end(steps, begun.elapsed());
        match drawn {
            Err(error) if error.class == Class::Cancelled => Err(error),
            drawn => Ok(drawn),
        }
    }
}

/// A request with its pictures. An error within is one of what it says; one without of what a plugin may not ask.
fn asked_of(request: &SubRequest, images: Vec<SubImage>) -> Result<Result<Asked>> {
    let mut texts = [vec![], vec![]];
    let mut pictures = Pictures::default();
    let (count, is_masked) = (images.len(), images.iter().any(|image| image.mask.is_some()));
    let first = images.first().map_or((0, 0), |image| (image.seed, image.subseed));
    for (place, image) in images.into_iter().enumerate() {
        let wrong = |field: &str, text: &str| Error::invalid(format!("images[{place}].{field}: {text}"));
        let SubImage { prompt, negative, seed, subseed, init, mask, image } = image;
        let prompt = request.prompt_with_networks(prompt.as_deref(), image);
        texts[0].push(prompt.map_err(|error| wrong("prompt", &error.text))?);
        texts[1].push(negative.unwrap_or_else(|| request.prompt("negative_prompt", image).to_owned()));
        for (field, seed) in [("seed", seed), ("subseed", subseed)] {
            i64::try_from(seed).map_err(|_| wrong(field, &format!("{seed} is more than a seed may be")))?;
        }
        match (request.method, init) {
            (Method::Img2Img, Some(init)) => pictures.init.push(given(&init)),
            (Method::Img2Img, None) => {
                return Err(wrong("init", "img2img begins with an image; give one"));
            }
            (Method::Txt2Img, None) if mask.is_none() => (),
            (Method::Txt2Img, _) => return Err(wrong("init", "txt2img begins with noise alone; give none")),
        }
        match mask {
            Some(mask) => pictures.masks.push(given(&mask)),
            None if is_masked => {
                return Err(wrong("mask", "of images in one run all have a mask, or none"));
            }
            None => (),
        }
    }
    if count == 0 {
        return Err(Error::invalid("a sub-job without images"));
    }
    Ok(request.asked(texts, first, pictures))
}

/// A plugin's image as a request has it.
fn given(image: &Image) -> ImageIn {
    let Image { width, height, channels, pixels } = image;
    ImageIn::raw(Vec::clone(pixels), *width as u32, *height as u32, *channels as u32)
}

/// What was drawn, as plugins have it.
fn picture(drawn: ImageOut) -> Result<SubPicture> {
    let ImageOut { raw, width, height, channels, seed, infotext, .. } = drawn;
    let pixels = raw.ok_or_else(|| Error::internal("a picture without pixels"))?.0;
    let channels = channels.unwrap_or(3) as usize;
    let image = Image { width: width as usize, height: height as usize, channels, pixels: Arc::new(pixels) };
    Ok(SubPicture { image, seed: seed.unwrap_or_default(), infotext: infotext.unwrap_or_default() })
}

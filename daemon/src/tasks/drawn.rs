//! How a request is drawn: once, in loops, or continued part by part; again in another precision or with other memory where it
//! must be.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use latentd_client::protocol::{ImageIn, ImageOut, PluginLine, Timings, Txt2ImgResult};
use latentd_models::image::Picture;
use latentd_models::image::outpaint::Job;
use latentd_models::model::PictureSize;
use latentd_models::nn::Precision;
use latentd_models::pipeline::{self, MaskedContent, Texts};

use super::beside::Beside;
use super::continuation::Draws;
use super::draw::{Draw, check_fits, in_field};
use super::finished::{Finished, Finishing, finished};
use super::from_pictures::{FromPictures, Ready, Way};
use super::given::{Given, Sources};
use super::hooks::RunHooks;
use super::packing::Packing;
use super::plugins::{Asking, MOST_LOGGED};
use super::sd_upscale::{DrawsParts, Part, SdUpscale};
use super::subcourse::Along;
use super::subjobs::expected;
use super::subruns::{Drawn, SubRuns};
use super::task::Run;
use crate::error::{Class, Error, Result};
use crate::memory::{HiresWish, Known, Lease, Lent, Wishes};
use crate::plugins::{Alone, JobStages, Pair};

impl Draw {
    /// Draws and packs; of the job so many pictures were packed before, and so many beside them.
    pub(super) fn run(
        &self,
        run: &Run<'_>,
        (first, beside): (usize, usize),
        packing: &mut Packing<'_>,
    ) -> Result<Txt2ImgResult> {
        let started = Instant::now();
        let timings = Timings { queue_s: run.waited_s, ..Default::default() };
        run.watch.progress("loading", 0, self.steps(), None);
        // Also where the model is in memory: a job draws with the file as it was, or not at all.
        self.files.check()?;
        self.wishes.changes.check()?;
        if let Some(refiner) = &self.wishes.refiner {
            refiner.files.check()?;
            refiner.changes.check()?;
        }
        if let Some(hires) = &self.wishes.hires {
            hires.files.check()?;
            hires.changes.check()?;
        }
        let cancelled = || run.watch.is_cancelled();
        let mut course = Course {
            started,
            known: Arc::clone(&self.known),
            wishes: self.wishes.clone(),
            has_emptied: false,
            timings,
            notices: self.notices.clone(),
            spent: BTreeMap::new(),
            log: vec![],
            beside: Beside::after(beside),
            steps: 0,
            within: Drawn::default(),
            given_bytes: 0,
        };
        let _expected = expected(&self.subjobs, &run.device.memory);
        // Each is decoded once, however often it is drawn.
        let asking = Asking::new(run.watch, &run.device.memory, &self.studio, self.drawing.rng);
        let _pictures = self.plugins.ready(&asking)?;
        let whole = self.from.as_ref().filter(|from| !from.is_in_parts());
        let ready = whole.map(|from| from.ready(&self.studio, &cancelled)).transpose()?;
        course.notices.extend(ready.iter().flat_map(|ready| ready.notices.clone()));
        let images = match (&self.from, ready) {
            (Some(from), Some(ready)) if from.loopback.is_some() => {
                self.looped(from, &ready, run, &mut course, (packing, first))?
            }
            (Some(from), None) => self.in_parts(from, run, &mut course, (packing, first))?,
            (from, ready) => {
                let from = from.as_ref().zip(ready.as_ref()).map(|(from, ready)| (from, ready, from.way()));
                let drawn = self.round(&self.drawing, from, run, &mut course)?;
                course.beside.pack(packing, |image| first + image)?;
                let images =
                    drawn.into_iter().enumerate().map(|(index, Finished { picture, drawn, room, pairs })| {
                        if cancelled() {
                            let text = "cancelled while its pictures were put together";
                            return Err(Error::new(Class::Cancelled, text));
                        }
                        let told = self.told.clone().of_image(drawn.index);
                        let infotext = self.infotext((&drawn, &pairs), &told, &mut course, run)?;
                        let (seed, subseed) = (drawn.seed, drawn.subseed);
                        let packed = packing.pack(picture, seed, infotext, first + index)?;
                        drop(room);
                        Ok(ImageOut { subseed, ..packed })
                    });
                images.collect::<Result<Vec<_>>>()?
            }
        };
        let Course { known, mut timings, mut notices, spent, mut log, beside, .. } = course;
        log.truncate(MOST_LOGGED);
        notices.extend(beside.left_out());
        timings.total_s = started.elapsed().as_secs_f64();
        Ok(Txt2ImgResult {
            images,
            job: run.job.to_owned(),
            precision: known.precision.name().to_owned(),
            timings,
            plugin_timings: spent,
            plugin_log: log,
            artifacts: beside.packed,
            notices,
        })
    }

    /// Each picture from the one before, with the next seed.
    fn looped(
        &self,
        from: &FromPictures,
        first: &Ready,
        run: &Run<'_>,
        course: &mut Course,
        (packing, before): (&mut Packing<'_>, usize),
    ) -> Result<Vec<ImageOut>> {
        let Some(loopback) = from.loopback else { return Ok(vec![]) };
        let sources = Sources::of(&self.studio);
        let batches = self.drawing.n_iter;
        let mut images = vec![];
        for batch in 0..batches {
            let mut ready = first.one(batch);
            let mut told = self.told.clone().of_image(batch);
            for number in 0..loopback.loops {
                let way = Way {
                    strength: loopback.strength(from.way().strength, number),
                    masked_content: if number == 0 {
                        from.way().masked_content
                    } else {
                        MaskedContent::Picture
                    },
                };
                let drawing = pipeline::Txt2Img {
                    seed: self.drawing.seed.wrapping_add((batch * loopback.loops + number) as u64),
                    n_iter: 1,
                    ..self.drawing.clone()
                };
                let drawn = self.round(&drawing, Some((from, &ready, way)), run, course)?;
                // What is drawn of a loop becomes the next image, be it at once or after other loops.
                course.beside.pack(packing, |_| before + images.len())?;
                let drawn = drawn.into_iter().next();
                let Finished { picture, drawn, room, pairs } =
                    drawn.ok_or_else(|| Error::internal("a loop drew nothing"))?;
                told.request.denoising_strength = Some(way.strength);
                let infotext = self.infotext((&drawn, &pairs), &told, course, run)?;
                if number + 1 < loopback.loops {
                    let given = Given::of_picture(&picture)?;
                    ready = from.looped(&given, batch, &self.studio)?;
                    if let Some(begun) = &mut told.begun {
                        begun.init_images = vec![ImageIn::blob(given.keep(&sources))];
                        begun.inpainting_fill = 1;
                    }
                }
                if batches == 1 || number + 1 == loopback.loops {
                    course.given_bytes += picture.pixels.len() as u64;
                    let packed = packing.pack(picture, drawn.seed, infotext, before + images.len())?;
                    drop(room);
                    images.push(ImageOut { subseed: drawn.subseed, ..packed });
                }
            }
        }
        Ok(images)
    }

    /// Pictures that are continued or enlarged, each with the next seed.
    fn in_parts(
        &self,
        from: &FromPictures,
        run: &Run<'_>,
        course: &mut Course,
        (packing, before): (&mut Packing<'_>, usize),
    ) -> Result<Vec<ImageOut>> {
        let sources = Sources::of(&self.studio);
        let (picture, _room) = match &from.enlargement {
            Some(enlargement) => {
                let (picture, room) =
                    self.enlarged(enlargement, &from.first_opaque(&sources)?, run, course)?;
                (picture, Some(room))
            }
            None => (from.first(&sources).map_err(|error| in_field(error, true))?, None),
        };
        let mut images = vec![];
        for number in 0..self.drawing.n_iter as u64 {
            let mut drawing = pipeline::Txt2Img { n_iter: 1, ..self.drawing.clone() };
            match &mut drawing.variation {
                Some(variation) => variation.subseed = variation.subseed.wrapping_add(number),
                None => drawing.seed = drawing.seed.wrapping_add(number),
            }
            let mut parts = Parts { draw: self, from, drawing: &drawing, run, course, last: None };
            let made = match (&from.continuation, &from.enlargement) {
                (Some(continuation), _) => continuation.continued(&picture, &mut parts)?,
                (None, Some(enlargement)) => enlargement.drawn_anew(&picture, &mut parts)?,
                (None, None) => return Ok(vec![]),
            };
            let last = parts.last;
            course.beside.pack(packing, |_| before + images.len())?;
            let (drawn, pairs) = last.ok_or_else(|| Error::internal("nothing was drawn"))?;
            // That of the first part draws them all.
            let drawn = pipeline::Output { seed: drawing.seed, ..drawn };
            let told = self.told.clone().of_image(0);
            let infotext = self.infotext((&drawn, &pairs), &told, course, run)?;
            let packed = packing.pack(made, drawn.seed, infotext, before + images.len())?;
            images.push(ImageOut { subseed: drawn.subseed, ..packed });
        }
        Ok(images)
    }

    /// A picture made larger before it is drawn anew, and what it and what comes of it take.
    fn enlarged(
        &self,
        enlargement: &SdUpscale,
        picture: &Picture,
        run: &Run<'_>,
        course: &mut Course,
    ) -> Result<(Picture, Lease)> {
        let memory = &run.device.memory;
        let engines = &self.plugins.engines[..];
        let bytes = enlargement.bytes((picture.width, picture.height), engines)?;
        let room = memory.reserve_for_job(bytes, "sd_upscale", &|| run.watch.is_cancelled())?;
        let asking = Asking::new(run.watch, memory, &self.studio, self.drawing.rng);
        let asking = asking.in_precision(self.known.precision);
        let alone = Alone::new(("img2img", self.plugins.request()), 1, engines, &asking);
        let all = self.steps();
        let made = enlargement.enlarged(picture, (&alone, engines), &mut |done| {
            run.watch.progress("upscaling", done as u32, all, None);
        })?;
        course.steps = self.steps_before();
        for (plugin, seconds) in alone.spent() {
            *course.spent.entry(plugin).or_default() += seconds;
        }
        course.tell(
            alone.notices().into_iter().map(|(plugin, text)| format!("plugin '{plugin}': {text}")).collect(),
        );
        course.beside.add(alone.artifacts());
        drop(alone);
        course.log.extend(asking.log());
        Ok((made, room))
    }

    /// Draws once, in another precision or with other memory where it must be.
    fn round(
        &self,
        drawing: &pipeline::Txt2Img,
        from: Option<(&FromPictures, &Ready, Way)>,
        run: &Run<'_>,
        course: &mut Course,
    ) -> Result<Vec<Finished>> {
        let cancelled = || run.watch.is_cancelled();
        let memory = &run.device.memory;
        loop {
            let known = Arc::clone(&course.known);
            let picture = match &self.from {
                // Its parts have sizes of their own.
                Some(from) if from.is_in_parts() => {
                    PictureSize { width: drawing.width, height: drawing.height, ..self.picture }
                }
                _ => self.picture,
            };
            let mut lent = Lent::new(memory, &self.files, &known, picture, &course.wishes, &cancelled)?;
            let drawing =
                pipeline::Txt2Img { samples_at_once: Some(lent.samples_at_once()), ..drawing.clone() };
            if course.steps == self.steps_before() {
                course.timings.load_s = course.started.elapsed().as_secs_f64();
            }
            let steps = (course.steps, self.steps());
            let along = Along::new(run.watch, self.steps(), course.within.steps);
            let run = &Run { watch: &along, ..*run };
            let mut hooks = RunHooks::new(run, self.preview_every, course.timings, steps);
            let begun = from.map(|(from, ready, way)| from.begun(drawing.clone(), ready, way)).transpose()?;
            let pictures = drawing.batch_size.saturating_mul(drawing.n_iter);
            let asking = Asking::new(run.watch, memory, &self.studio, drawing.rng);
            let asking = asking.showing(pictures, self.preview_every.is_some());
            let asking = asking.in_precision(known.precision).of_bases(lent.bases());
            let within = (self.around()?, &self.subjobs[..]);
            let subjobs = SubRuns::new(within, &self.studio, (run, &along), &course.within);
            let asking = asking.with_subjobs(&subjobs);
            let sources = from.map(|(from, ready, _)| from.sources(ready));
            let stages = JobStages::begin(&self.plugins, &asking)?.beginning_with(sources);
            let facts = &known.facts;
            let mut called = &stages;
            let drawn = match &begun {
                Some(begun) => pipeline::img2img(facts, &mut lent, begun, &mut hooks, &mut called),
                None => pipeline::txt2img(facts, &mut lent, &drawing, &mut hooks, &mut called),
            };
            // What drew is needed no longer, and plugins may need its room.
            let short = lent.failure.take();
            drop(lent);
            let finishing = Finishing {
                ready: from.map(|(_, ready, _)| ready),
                watch: run.watch,
                is_part: self.from.as_ref().is_some_and(FromPictures::is_in_parts),
                most_bytes: self.studio.settings.get().result_bytes.saturating_sub(course.given_bytes),
            };
            let drawn = drawn.and_then(|drawn| finished(drawn, &finishing, &stages));
            let failure = stages.failure().or(short);
            let (said, artifacts) = (stages.notices(), stages.artifacts());
            for (plugin, seconds) in stages.spent() {
                *course.spent.entry(plugin).or_default() += seconds;
            }
            drop(stages);
            course.log.extend(asking.log());
            let mut within = subjobs.drawn();
            course.log.append(&mut within.log);
            for (plugin, seconds) in &within.spent {
                *course.spent.entry(plugin.clone()).or_default() += seconds;
            }
            match drawn {
                Ok(drawn) => {
                    course.steps = hooks.steps_done();
                    course.within = within;
                    course.timings = hooks.timings;
                    course.tell(hooks.notices);
                    course.tell(said);
                    course.beside.add(artifacts);
                    return Ok(drawn);
                }
                // What is free may be in pieces, none of them large enough, until what lies idle is gone.
                Err(latentd_models::Error::OutOfMemory { .. })
                    if !course.has_emptied && memory.drop_idle() =>
                {
                    course.has_emptied = true;
                }
                // Another range of numbers may hold what this one does not.
                Err(latentd_models::Error::NotFinite(reason)) if known.precision != Precision::F32 => {
                    course.notices.push(format!("{reason}; drawn again in f32"));
                    course.known = memory.known(&self.files, Precision::F32)?;
                    if let Some(refiner) = &mut course.wishes.refiner {
                        refiner.known = memory.known(&refiner.files, Precision::F32)?;
                    }
                    if let Some(hires) = &mut course.wishes.hires {
                        hires.known = memory.known(&hires.files, Precision::F32)?;
                    }
                    check_fits(&self.studio, &course.wishes, &course.known, &self.picture)?;
                }
                Err(latentd_models::Error::NotFinite(reason)) if self.is_changed() => {
                    let text = format!(
                        "{reason}, or a LoRA or hypernetwork is too strong; give it a smaller strength"
                    );
                    return Err(Error::new(Class::Model, text));
                }
                Err(error) => return Err(failure.unwrap_or_else(|| error.into())),
            }
        }
    }

    /// Whether something changes what the checkpoint computes.
    fn is_changed(&self) -> bool {
        let of_hires = |hires: &HiresWish| !hires.changes.files.is_empty() || !hires.hypernetworks.is_empty();
        let is_changed = !self.wishes.changes.files.is_empty() || !self.wishes.hypernetworks.is_empty();
        is_changed || self.wishes.hires.as_ref().is_some_and(of_hires)
    }
}

/// The parts of one continued picture.
struct Parts<'a, 'b> {
    draw: &'a Draw,
    from: &'a FromPictures,
    /// What is drawn, but for the size and the seed of each.
    drawing: &'a pipeline::Txt2Img,
    run: &'a Run<'b>,
    course: &'a mut Course,
    /// What was drawn last, without its picture, and what plugins add to its text.
    last: Option<(pipeline::Output, Vec<Pair>)>,
}

impl Draws for Parts<'_, '_> {
    fn compute<T: Send>(&self, bytes: u64, work: impl FnOnce() -> T + Send) -> Result<T> {
        let cancelled = || self.run.watch.is_cancelled();
        if cancelled() {
            return Err(Error::new(Class::Cancelled, "cancelled before the next side"));
        }
        let memory = &self.run.device.memory;
        let name = &self.draw.files.checkpoint.item().name;
        let _room = memory.reserve_for_job(bytes, name, &cancelled)?;
        Ok(memory.device().run(work))
    }

    fn draw(&mut self, job: &Job, more: u64) -> Result<Picture> {
        let ready = self.from.part(job)?;
        self.drawn(&ready, (job.picture.width, job.picture.height), (self.from.way(), None), more)
    }
}

impl DrawsParts for Parts<'_, '_> {
    fn part(&mut self, picture: &Picture, mask: Option<&Picture>, part: &Part<'_>) -> Result<Picture> {
        let ready = self.from.part_of(picture, mask, part)?;
        let strength = part.strength.unwrap_or(self.from.way().strength);
        let way = Way { strength, masked_content: MaskedContent::Picture };
        self.drawn(&ready, part.size, (way, part.prompt), part.more)
    }
}

impl Parts<'_, '_> {
    /// Draws what is ready, at this size, by a prompt of its own if it has one, with the seed of so much more than the picture's.
    fn drawn(
        &mut self,
        ready: &Ready,
        (width, height): (usize, usize),
        (way, prompt): (Way, Option<&str>),
        more: u64,
    ) -> Result<Picture> {
        let Self { draw, from, run, .. } = self;
        let seed = self.drawing.seed.wrapping_add(more);
        let prompt = prompt.map_or_else(|| self.drawing.prompt.clone(), |own| Texts::One(own.to_owned()));
        let drawing = pipeline::Txt2Img { prompt, width, height, seed, ..self.drawing.clone() };
        let drawn = draw.round(&drawing, Some((from, ready, way)), run, self.course)?;
        let drawn = drawn.into_iter().next();
        let drawn = drawn.ok_or_else(|| Error::internal("a part was not drawn"))?;
        self.last = Some((drawn.drawn, drawn.pairs));
        Ok(drawn.picture)
    }
}

/// What a run goes through, however often it draws.
pub(super) struct Course {
    started: Instant,
    pub(super) known: Arc<Known>,
    wishes: Wishes,
    /// Whether what lay idle was let go of.
    has_emptied: bool,
    timings: Timings,
    notices: Vec<String>,
    /// Seconds of each plugin.
    spent: BTreeMap<String, f64>,
    /// What plugins logged.
    log: Vec<PluginLine>,
    /// Pictures of plugins beside the results.
    beside: Beside,
    /// Steps that are done.
    steps: u32,
    /// What plugins drew on the way.
    within: Drawn,
    /// Bytes of the pixels of pictures that are packed already.
    given_bytes: u64,
}

impl Course {
    /// Tells each once.
    pub(super) fn tell(&mut self, notices: Vec<String>) {
        for text in notices {
            if !self.notices.contains(&text) {
                self.notices.push(text);
            }
        }
    }
}

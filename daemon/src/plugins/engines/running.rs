//! Engines while a job runs: each plugin has one instance for all of its own, made when the first of them is run.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use latentd_plugin_api::abi::{
    LATENTD_SKIP, latentd_call, latentd_detection, latentd_engine_run, latentd_job, latentd_status,
};

use super::engine::{Engine, asked as described};
use super::results;
use crate::error::{Class, Error, Result};
use crate::plugins::artifact::{self, Artifact};
use crate::plugins::call::{AtHand, Job};
use crate::plugins::host::{bytes, detected, text};
use crate::plugins::lending::{Lending, Made, Said};
use crate::plugins::notices::MOST_NOTICES;
use crate::plugins::objects::{Content, Objects};
use crate::plugins::opened::Opened;
use crate::plugins::records::recorded;

/// An empty map in MessagePack.
const NOTHING: &[u8] = &[0x80];
/// Engines that run one within the other.
const DEEPEST: usize = 4;

type DetectedFn =
    unsafe extern "C" fn(call: *mut latentd_call, detection: *const latentd_detection) -> latentd_status;

/// What instances are told of the job that they are made for.
#[derive(Clone, Copy)]
pub(in crate::plugins) struct JobOf<'a> {
    pub method: &'a str,
    pub request: &'a [u8],
    pub pictures: u32,
    pub batch: u32,
    /// Those that were found as the request came.
    pub engines: &'a [Engine],
    /// How deep it lies within other jobs.
    pub depth: u32,
}

/// The engines of a job.
pub(in crate::plugins) struct Engines<'a> {
    pub(super) of: JobOf<'a>,
    pub(super) job: &'a dyn Job,
    /// By the plugins' names.
    instances: RefCell<BTreeMap<String, Rc<Instance>>>,
    /// What each plugin took.
    spent: RefCell<BTreeMap<String, Duration>>,
    /// What plugins want to be told, with their names.
    notices: RefCell<Vec<(String, String)>>,
    /// What they leave beside the results.
    artifacts: RefCell<Vec<Artifact>>,
    /// How many run now, one within the other.
    depth: Cell<usize>,
}

/// What a plugin made for its engines.
struct Instance {
    made: Made,
    objects: RefCell<Objects>,
    opened: RefCell<Opened>,
}

impl<'a> Engines<'a> {
    pub(in crate::plugins) fn new(of: JobOf<'a>, job: &'a dyn Job) -> Self {
        let (instances, spent, notices, artifacts, depth) = Default::default();
        Self { of, job, instances, spent, notices, artifacts, depth }
    }

    /// Seconds that each plugin has taken.
    pub(in crate::plugins) fn spent(&self) -> Vec<(String, f64)> {
        self.spent.borrow().iter().map(|(name, spent)| (name.clone(), spent.as_secs_f64())).collect()
    }

    /// What plugins wanted to be told since this was asked last, with their names.
    pub(in crate::plugins) fn notices(&self) -> Vec<(String, String)> {
        self.notices.take()
    }

    /// What plugins left beside the results since this was asked last.
    pub(in crate::plugins) fn artifacts(&self) -> Vec<Artifact> {
        self.artifacts.take()
    }

    /// The instance of a plugin.
    fn instance(&self, engine: &Engine) -> Result<Rc<Instance>> {
        let name = engine.plugin();
        if let Some(made) = self.instances.borrow().get(name) {
            return Ok(Rc::clone(made));
        }
        let told = latentd_job {
            size: size_of::<latentd_job>() as u32,
            depth: self.of.depth,
            method: text(self.of.method),
            request: bytes(self.of.request),
            params: bytes(NOTHING),
            note: bytes(&[]),
            pictures: self.of.pictures,
            batch: self.of.batch,
        };
        let (objects, opened) = (RefCell::default(), RefCell::<Opened>::default());
        // All entries of the plugin that are files, under numbers that stay.
        for engine in self.of.engines.iter().filter(|engine| engine.plugin() == name) {
            if let Some(file) = &engine.file {
                opened.borrow_mut().number(file);
            }
        }
        let (made, said) = Made::by(&engine.plugin, &told, self.job, (&objects, &opened))?;
        self.hear(name, said);
        let made = Rc::new(Instance { made, objects, opened });
        self.instances.borrow_mut().insert(name.to_owned(), Rc::clone(&made));
        Ok(made)
    }

    fn hear(&self, plugin: &str, said: Said) {
        let more = artifact::add(&mut self.artifacts.borrow_mut(), said.artifacts);
        let mut heard = self.notices.borrow_mut();
        let said = said.notices.into_iter().map(|text| (plugin.to_owned(), text));
        for told in said.chain(more) {
            // One more than there may be tells that there are more.
            let of_plugin = heard.iter().filter(|(of, _)| *of == told.0).count();
            if of_plugin <= MOST_NOTICES && !heard.contains(&told) {
                heard.push(told);
            }
        }
    }

    /// Runs an engine on tiles of 0…1, or an image of three colours, that it makes another one of.
    pub(super) fn run_content(&self, engine: &Engine, image: &Content) -> Result<Content> {
        let asked = described(engine.kind, &engine.entry);
        let left = self.call(engine, image, None, &asked)?;
        left.image.ok_or_else(|| Error::internal("an engine without an image"))
    }

    /// Calls an engine once.
    pub(super) fn call(
        &self,
        engine: &Engine,
        image: &Content,
        mask: Option<&Content>,
        asked: &latentd_engine_run,
    ) -> Result<results::Left> {
        if self.job.is_cancelled() {
            return Err(Error::new(Class::Cancelled, format!("cancelled in {}", engine.at())));
        }
        if self.depth.get() >= DEEPEST {
            let text = format!("{}: engines run more than {DEEPEST} deep one within the other", engine.at());
            return Err(Error::new(Class::Unsupported, text));
        }
        self.depth.set(self.depth.get() + 1);
        let begun = Instant::now();
        let run = || self.call_with(&*self.instance(engine)?, engine, (image, mask, asked));
        let made = recorded(self.job, &engine.plugin.manifest, run);
        *self.spent.borrow_mut().entry(engine.plugin().to_owned()).or_default() += begun.elapsed();
        self.depth.set(self.depth.get() - 1);
        made
    }

    fn call_with(
        &self,
        instance: &Instance,
        engine: &Engine,
        (image, mask, asked): (&Content, Option<&Content>, &latentd_engine_run),
    ) -> Result<results::Left> {
        let Instance { made, objects, opened } = instance;
        let (name, at) = (engine.plugin(), engine.at());
        let wrong = |text: String| Error::new(Class::Plugin, format!("plugin '{name}', {at}: {text}"));
        let run = engine.plugin.tables.engines.and_then(|table| table.run);
        let run = run.ok_or_else(|| wrong("it has no function".to_owned()))?;
        let _ends = Lending::begin(objects);
        let lend = |content: &Content| {
            objects.borrow_mut().lend(content.clone()).map_err(|misuse| wrong(misuse.to_string()))
        };
        let file = engine.file.as_ref().map(|file| opened.borrow_mut().number(file));
        let told = latentd_engine_run {
            image: lend(image)?,
            mask: mask.map_or(Ok(0), lend)?,
            file: file.flatten().unwrap_or_default(),
            params: if asked.params.length == 0 { bytes(NOTHING) } else { asked.params },
            ..*asked
        };
        let call = engine.plugin.call(self.job, Some(objects), None).with_opened(opened);
        let call = call.with_at_hand(AtHand { engines: Some(self), ..AtHand::default() });
        let finds = engine.kind.finds();
        call.with(|state| state.detections = finds.then(Vec::new));
        let found: Option<DetectedFn> = if finds { Some(detected) } else { None };
        // SAFETY: what is lent lives until the function returns; instance and call are this plugin's.
        let status = unsafe { run(made.pointer(), call.pointer(), &raw const told, found) };
        let state = call.end(status, &at)?;
        if status == LATENTD_SKIP {
            return Err(wrong("it answered SKIP, which plans and stages may".to_owned()));
        }
        self.hear(name, Said { notices: state.notices, artifacts: state.artifacts });
        if let Some(slot) = state.replaced.keys().find(|slot| **slot != 0 || finds) {
            return Err(wrong(format!("slot {slot} is none of its slots")));
        }
        let made = match state.replaced.get(&0) {
            Some(handle) => {
                let mut objects = objects.borrow_mut();
                Some(objects.content(*handle).map_err(|misuse| wrong(misuse.to_string()))?.clone())
            }
            None if finds => None,
            None => return Err(wrong("it gave no image in slot 0".to_owned())),
        };
        let data = state.replies.into_iter().find(|(slot, _)| *slot == 0).map(|(_, data)| data);
        let left = results::Left {
            image: made,
            detections: state.detections.unwrap_or_default(),
            data: data.unwrap_or_default(),
        };
        left.check(engine, image, &told).map_err(wrong)?;
        Ok(left)
    }
}

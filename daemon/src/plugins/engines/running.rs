//! Engines while a job runs: each plugin has one instance for all of its own, made when the first of them is run.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use latentd_plugin_api::abi::{LATENTD_SKIP, latentd_job};

use super::engine::{Engine, asked};
use crate::error::{Class, Error, Result};
use crate::plugins::artifact::Artifact;
use crate::plugins::call::{Call, Job};
use crate::plugins::engine_kinds::Kind;
use crate::plugins::host::{bytes, text};
use crate::plugins::lending::{Lending, Made, Said};
use crate::plugins::objects::{Content, Objects};
use crate::plugins::opened::Opened;
use crate::plugins::records::recorded;

/// An empty map in MessagePack.
const NOTHING: &[u8] = &[0x80];

/// What instances are told of the job that they are made for.
#[derive(Clone, Copy)]
pub(in crate::plugins) struct JobOf<'a> {
    pub method: &'a str,
    pub request: &'a [u8],
    pub pictures: u32,
    pub batch: u32,
}

/// The engines of a job.
pub(in crate::plugins) struct Engines<'a> {
    of: JobOf<'a>,
    pub(super) job: &'a dyn Job,
    /// By the plugins' names.
    instances: RefCell<BTreeMap<String, Rc<Instance>>>,
    /// What each plugin took.
    spent: RefCell<BTreeMap<String, Duration>>,
    /// What plugins want to be told, with their names.
    notices: RefCell<Vec<(String, String)>>,
    /// What they leave beside the results.
    artifacts: RefCell<Vec<Artifact>>,
}

/// What a plugin made for its engines.
struct Instance {
    made: Made,
    objects: RefCell<Objects>,
    opened: RefCell<Opened>,
}

impl<'a> Engines<'a> {
    pub(in crate::plugins) fn new(of: JobOf<'a>, job: &'a dyn Job) -> Self {
        let (instances, spent, notices, artifacts) = Default::default();
        Self { of, job, instances, spent, notices, artifacts }
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
            depth: 0,
            method: text(self.of.method),
            request: bytes(self.of.request),
            params: bytes(NOTHING),
            note: bytes(&[]),
            pictures: self.of.pictures,
            batch: self.of.batch,
        };
        let (objects, opened) = Default::default();
        let (made, said) = Made::by(&engine.plugin, &told, self.job, (&objects, &opened))?;
        self.hear(name, said);
        let made = Rc::new(Instance { made, objects, opened });
        self.instances.borrow_mut().insert(name.to_owned(), Rc::clone(&made));
        Ok(made)
    }

    fn hear(&self, plugin: &str, said: Said) {
        let mut heard = self.notices.borrow_mut();
        heard.extend(said.notices.into_iter().map(|text| (plugin.to_owned(), text)));
        self.artifacts.borrow_mut().extend(said.artifacts);
    }

    /// Runs an engine that makes one of a picture.
    pub(super) fn run(&self, engine: &Engine, image: &Content) -> Result<Content> {
        let begun = Instant::now();
        let run = || self.run_with(&*self.instance(engine)?, engine, image);
        let made = recorded(self.job, &engine.plugin.manifest, run);
        *self.spent.borrow_mut().entry(engine.plugin().to_owned()).or_default() += begun.elapsed();
        made
    }

    fn run_with(&self, instance: &Instance, engine: &Engine, image: &Content) -> Result<Content> {
        let Instance { made, objects, opened } = instance;
        let (name, at) = (engine.plugin(), engine.at());
        let wrong = |text: String| Error::new(Class::Plugin, format!("plugin '{name}', {at}: {text}"));
        let run = engine.plugin.tables.engines.and_then(|table| table.run);
        let run = run.ok_or_else(|| wrong("it has no function".to_owned()))?;
        let _ends = Lending::begin(objects);
        let mut told = asked(engine.kind, &engine.entry);
        told.image = objects.borrow_mut().lend(image.clone()).map_err(|misuse| wrong(misuse.to_string()))?;
        told.params = bytes(NOTHING);
        let call = Call::new(&engine.plugin.manifest, self.job, Some(objects), None).with_opened(opened);
        // SAFETY: what is lent lives until the function returns; instance and call are this plugin's.
        let status = unsafe { run(made.pointer(), call.pointer(), &raw const told, None) };
        let state = call.end(status, &at)?;
        if status == LATENTD_SKIP {
            return Err(wrong("it answered SKIP, which plans and stages may".to_owned()));
        }
        self.hear(name, Said { notices: state.notices, artifacts: state.artifacts });
        if let Some(slot) = state.replaced.keys().find(|slot| **slot != 0) {
            return Err(wrong(format!("slot {slot} is none of its slots")));
        }
        let handle = state.replaced.get(&0).ok_or_else(|| wrong("it gave no image in slot 0".to_owned()))?;
        let mut objects = objects.borrow_mut();
        let given = objects.content(*handle).map_err(|misuse| wrong(misuse.to_string()))?;
        check(engine, image, given).map_err(wrong)?;
        Ok(given.clone())
    }
}

/// Whether an engine made of a picture what its kind makes.
fn check(engine: &Engine, of: &Content, made: &Content) -> Result<(), String> {
    let mut wanted = of.dims();
    if engine.kind == Kind::Upscaler {
        wanted.iter_mut().skip(2).for_each(|side| *side *= engine.tiling.scale);
    }
    let kind = |content: &Content| match content {
        Content::Tensor(_) => "a tensor",
        Content::Image(_) => "an image",
        Content::Bytes(_) => "a file",
    };
    if kind(of) != kind(made) || made.dims() != wanted {
        let (old, new) = (kind(of), kind(made));
        return Err(format!("{new} {:?} where {old} {wanted:?} was wanted", made.dims()));
    }
    match made {
        Content::Tensor(tensor) => match tensor.values().iter().position(|value| !value.is_finite()) {
            Some(index) => {
                let value = tensor.values().get(index).copied().unwrap_or_default();
                Err(format!("number {index} of {wanted:?} is {value}"))
            }
            None => Ok(()),
        },
        Content::Image(_) | Content::Bytes(_) => Ok(()),
    }
}

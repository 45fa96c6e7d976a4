//! What stands for a job here: nobody draws, memory is bounded, and it can be cancelled or out of memory at will.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use latentd_client::protocol::{LibraryKind, PluginParams, Txt2ImgParams};
use latentd_models::model::ModelShape;
use latentd_models::networks::standalone::Standalone;
use latentd_models::sampling::NoiseSource;
use rmpv::Value;
use serde_json::{Map, Value as Json};
use tempfile::TempDir;

use super::inputs::{Random, Values};
use super::outcome::{Line, Outcome};
use super::schema;
use super::within::Within;
use crate::error::{Class, Error, Result};
use crate::library::Pinned;
use crate::memory::{Base, Budget, Lease};
use crate::onnx::{Graph, Limits};
use crate::plugins::call::Job;
use crate::plugins::engine_calls::Needed;
use crate::plugins::engines::Engine;
use crate::plugins::job::{JobFacts, JobPlugins, Settled};
use crate::plugins::library::Plugin;
use crate::plugins::objects::Image;
use crate::plugins::parameters;
use crate::plugins::resources::{HeldPicture, Nothing, Resources};
use crate::plugins::stages::JobStages;
use crate::plugins::subjobs::SubJobs;

/// Bytes that all tensors and images of a plugin may have at once.
const MOST_BYTES: u64 = 2 << 30;
/// Width, height and channels of a picture in parameters.
const PICTURE: [usize; 3] = [72, 40, 3];

/// A job that stages are called for.
pub(super) struct Bench {
    is_cancelled: AtomicBool,
    /// Allocations that are still granted.
    granted: AtomicU32,
    refused: AtomicU32,
    budget: Arc<Budget>,
    /// The plugin's own, once it asks for it.
    folder: Mutex<Option<TempDir>>,
    within: Within,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self {
            is_cancelled: AtomicBool::new(false),
            granted: AtomicU32::new(u32::MAX),
            refused: AtomicU32::new(0),
            budget: Budget::new(MOST_BYTES),
            folder: Mutex::default(),
            within: Within::default(),
        }
    }

    pub(super) fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Relaxed);
        self.within.cancel();
    }

    /// Grants so many allocations from now on.
    pub(super) fn grant(&self, count: u32) {
        self.granted.store(count, Ordering::Relaxed);
    }

    /// How many were not granted.
    pub(super) fn refused(&self) -> u32 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Job for Bench {
    fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Relaxed)
    }

    fn reserve(&self, bytes: u64, _plugin: &str) -> Result<Lease> {
        let take = |left: u32| if left == u32::MAX { Some(left) } else { left.checked_sub(1) };
        if self.granted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Error::new(Class::Memory, format!("{bytes} bytes cannot be had, for a check")));
        }
        let refused =
            || Error::new(Class::Memory, format!("{bytes} bytes are more than the {MOST_BYTES} of a job"));
        self.budget.try_reserve(bytes).ok_or_else(refused)
    }

    fn compute(&self, work: &mut (dyn FnMut() + Send)) {
        work();
    }

    fn noise_source(&self) -> NoiseSource {
        NoiseSource::default()
    }

    fn resources(&self) -> &dyn Resources {
        &MadeUp
    }

    fn pictures(&self) -> u32 {
        u32::MAX
    }

    fn model(&self) -> Option<Arc<ModelShape>> {
        Some(Arc::new(ModelShape::sd15()))
    }

    fn wants_preview(&self) -> bool {
        true
    }

    fn subjobs(&self) -> Option<&dyn SubJobs> {
        Some(&self.within)
    }

    fn folder(&self, _plugin: &str) -> Result<PathBuf> {
        let mut folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
        if folder.is_none() {
            let made = tempfile::Builder::new().prefix("latentd-validate-").tempdir();
            *folder = Some(made.map_err(|error| Error::internal(format!("cannot make a folder: {error}")))?);
        }
        Ok(folder.as_ref().map(|folder| folder.path().to_owned()).unwrap_or_default())
    }
}

/// Whatever picture is asked for is a small one that is made up. There is no library.
struct MadeUp;

impl Resources for MadeUp {
    fn picture(&self, _field: &str, _given: &Value) -> Result<Arc<dyn HeldPicture>> {
        Ok(Arc::new(MadeUp))
    }

    fn most_picture_bytes(&self) -> u64 {
        MOST_BYTES
    }

    fn file(&self, kind: LibraryKind, name: &str) -> Result<Arc<Pinned>> {
        Nothing.file(kind, name)
    }

    fn graph(&self, file: &Pinned) -> Result<Arc<Graph>> {
        Nothing.graph(file)
    }

    fn network(&self, file: &Pinned, base: Option<&Base>) -> Result<Arc<dyn Standalone>> {
        Nothing.network(file, base)
    }

    fn names(&self, kind: LibraryKind) -> Vec<String> {
        Nothing.names(kind)
    }

    fn known_sha256(&self, file: &Pinned) -> Option<String> {
        Nothing.known_sha256(file)
    }

    fn graph_limits(&self) -> Limits {
        Nothing.graph_limits()
    }
}

impl HeldPicture for MadeUp {
    fn size(&self) -> [usize; 3] {
        PICTURE
    }

    fn name(&self) -> &'static str {
        "made-up"
    }

    fn decoded(&self, is_mask: bool) -> Result<Image> {
        let [width, height, channels] = PICTURE;
        let channels = if is_mask { 1 } else { channels };
        let pixels = Values::Usual.pixels(&mut Random::of(0, "picture"), width * height * channels);
        Ok(Image { width, height, channels, pixels: Arc::new(pixels) })
    }
}

/// Why a check ended early: what came of it. (An `Err` that may be none of the plugin's faults.)
pub(super) type Looked<T = ()> = std::result::Result<T, Outcome>;

/// A failed check.
pub(super) fn fail<T>(why: impl Into<String>) -> Looked<T> {
    Err(Outcome::Failed(why.into()))
}

/// What a plugin answered to what it must do: that it cannot is its right, if it says why.
pub(super) fn must<T>(answer: Result<T>, at: &str) -> Looked<T> {
    answer.map_err(|error| {
        let text = if at.is_empty() { error.text.clone() } else { format!("{at}: {}", error.text) };
        if is_refusal(&error) && error.class == Class::Unsupported {
            Outcome::Skipped(text)
        } else {
            Outcome::Failed(text)
        }
    })
}

/// What a plugin answered to what it may refuse; whether it did it.
pub(super) fn may<T>(answer: Result<T>, at: &str) -> Looked<Option<T>> {
    match answer {
        Err(error) if is_refusal(&error) => Ok(None),
        answer => match must(answer, at) {
            Err(Outcome::Skipped(why)) => fail(why),
            other => other.map(Some),
        },
    }
}

/// Whether it says that it cannot, or may not, and why.
fn is_refusal(error: &Error) -> bool {
    matches!(error.class, Class::Unsupported | Class::InvalidParams)
        && !error.text.contains("and said no more")
}

/// A plugin that is loaded, with what its stages are called with.
pub(super) struct Ready {
    pub plugin: Arc<Plugin>,
    /// Of calls that do not look at parameters.
    pub params: Result<PluginParams, String>,
    /// The request that it is told of.
    pub request: Vec<u8>,
    /// Who is told what is being tried, should the process end in it.
    told: UnixStream,
}

impl Ready {
    pub(super) fn new(
        plugin: Arc<Plugin>,
        params: Option<PluginParams>,
        seed: u64,
        told: UnixStream,
    ) -> Self {
        let params = match params {
            Some(params) => Ok(params),
            None => usual_params(plugin.manifest.parameters.as_ref(), seed),
        };
        let request =
            Txt2ImgParams { prompt: "a cat".into(), seed: 1, batch_size: 4, ..Txt2ImgParams::default() };
        let request = rmp_serde::to_vec_named(&request).unwrap_or_default();
        Self { plugin, params, request, told }
    }

    /// Says what is tried next.
    pub(super) fn at(&self, what: &str) {
        if let Ok(line) = serde_json::to_string(&Line::At(what.to_owned())) {
            // Who does not read it gets no outcome, either.
            (&self.told).write_all(format!("{line}\n").as_bytes()).ok();
        }
    }

    /// Plans, as at submit.
    pub(super) fn resolve(&self, params: &PluginParams, job: &Bench) -> Result<JobPlugins> {
        let facts = JobFacts {
            method: "txt2img",
            request: &self.request,
            pictures: 4,
            batch: 4,
            strict: false,
            depth: 0,
        };
        let settled = Settled::of(vec![(Arc::clone(&self.plugin), params)], job)?;
        let mut plugins = JobPlugins::resolve(settled, &facts, job)?;
        for needed in plugins.needed_engines() {
            plugins.engines.push(self.own_engine(&needed, job)?);
        }
        job.within.plan(&plugins)?;
        Ok(plugins)
    }

    /// An engine that the plugin runs, if it is its own: there are no others here.
    pub(super) fn own_engine(&self, needed: &Needed, job: &Bench) -> Result<Engine> {
        let named = self.plugin.manifest.engines.iter().find(|named| named.kind == needed.kind);
        if !named.is_some_and(|named| named.entries.contains(&needed.name)) {
            let (kind, name) = (needed.kind.name(), &needed.name);
            let text = format!("it runs the {kind} '{name}', which is not its own");
            return Err(Error::new(Class::Unsupported, text));
        }
        Engine::describe(Arc::clone(&self.plugin), needed.kind, (&needed.name, None), job)
    }

    /// The usual parameters.
    pub(super) fn params(&self) -> Looked<&PluginParams> {
        self.params.as_ref().map_err(|why| Outcome::Skipped(why.clone()))
    }

    /// Plans with the usual parameters.
    pub(super) fn planned(&self, job: &Bench) -> Looked<JobPlugins> {
        must(self.resolve(self.params()?, job), "")
    }
}

/// An instance.
pub(super) fn begin<'a>(plugins: &'a JobPlugins, job: &'a Bench) -> Looked<JobStages<'a>> {
    must(JobStages::begin(plugins, job), "")
}

/// The defaults, or what the schema allows where they are not all that it wants.
fn usual_params(schema: Option<&Json>, seed: u64) -> Result<PluginParams, String> {
    let Some(schema) = schema else { return Ok(PluginParams::default()) };
    let mut defaults = Json::Object(Map::new());
    parameters::with_defaults(schema, &mut defaults)?;
    if parameters::validate(schema, &defaults).is_ok() {
        return Ok(PluginParams::default());
    }
    let made = schema::params(schema, &mut Random::of(seed, "params"));
    let made = made.ok_or("no parameters were found that its schema allows: give some with --params")?;
    Ok(PluginParams::from_json(made))
}

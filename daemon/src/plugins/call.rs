//! One call of one of a plugin's functions: what its services know of who asks, and what the call leaves.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use latentd_client::protocol::LibraryKind;
use latentd_models::Tensor;
use latentd_models::image::Picture;
use latentd_models::model::ModelShape;
use latentd_models::networks::attention_bank::Bank;
use latentd_models::networks::unet_residuals::ResidualSizes;
use latentd_models::pipeline::{AttentionStage, Evaluation, ImageCoding, Region, Residual, Role, Rule};
use latentd_models::sampling::NoiseSource;
use latentd_plugin_api::abi::{LATENTD_ANY, latentd_call};
use serde_json::Value as Json;

use super::artifact::Artifact;
use super::engine_calls::{Detection, Needed, RunsEngines};
use super::engine_kinds::Kind;
use super::manifest::Manifest;
use super::objects::Objects;
use super::opened::Opened;
use super::resources::{Nothing, Resources};
use super::settings::PluginConfigs;
use super::status::name_of;
use super::subjobs::{SubJobs, SubPlan};
use super::texts::Texts;
use crate::error::{Class, Error, Result};
use crate::memory::{Base, CacheKey, Cached, Lease};

/// The share of a plugin's work that is worth to be told.
const LEAST_ADVANCE: f64 = 0.01;

/// What a plugin did.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Recorded<'a> {
    /// So many of its functions ran, in so much time.
    Ran { calls: u64, spent: Duration },
    /// One of them failed.
    Failed(&'a str),
    /// It logged a line.
    Logged { level: &'static str, text: &'a str },
}

/// What of a job its plugins may ask for.
pub(crate) trait Job: Sync {
    /// Whether it was cancelled.
    fn is_cancelled(&self) -> bool;

    /// Counts memory for what a plugin allocates.
    fn reserve(&self, bytes: u64, plugin: &str) -> Result<Lease>;

    /// Does something on the threads that compute.
    fn compute(&self, work: &mut (dyn FnMut() + Send));

    /// Where the request's noise comes from.
    fn noise_source(&self) -> NoiseSource;

    /// Where pictures and files come from.
    fn resources(&self) -> &dyn Resources {
        &Nothing
    }

    /// The model whose turn it is, or that it will be first.
    fn model(&self) -> Option<Arc<ModelShape>> {
        None
    }

    /// Grows each time another model's turn comes.
    fn turn(&self) -> u32 {
        0
    }

    /// The checkpoint whose turn it is, over whose UNet networks may be built.
    fn base(&self) -> Option<Base> {
        None
    }

    /// All that it will draw with, its own first.
    fn bases(&self) -> &[Base] {
        &[]
    }

    /// It is the turn of this model.
    fn model_is(&self, _model: &Arc<ModelShape>) {}

    /// How many pictures are drawn.
    fn pictures(&self) -> u32 {
        0
    }

    /// A plugin has done this share of what it does now.
    fn progress(&self, _plugin: &str, _share: f64, _what: &str) {}

    /// Whether somebody wants to see pictures of the way there.
    fn wants_preview(&self) -> bool {
        false
    }

    /// A plugin shows one.
    fn preview(&self, _plugin: &str, _picture: &Picture) {}

    /// A folder of a plugin's own, made if it is not there.
    fn folder(&self, plugin: &str) -> Result<PathBuf> {
        Err(Error::internal(format!("there is no folder for plugin '{plugin}' here")))
    }

    /// What the configuration says of plugins.
    fn configs(&self) -> Arc<PluginConfigs> {
        Arc::default()
    }

    /// Versions of plugins that the request wants, by name, where they are not the highest.
    fn versions(&self) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        &NONE
    }

    /// Takes note of what a plugin did. \[any thread\]
    fn record(&self, _plugin: &str, _version: &str, _event: &Recorded<'_>) {}

    /// The names of a kind of engines, sorted.
    fn engine_names(&self, _kind: Kind) -> Vec<String> {
        vec![]
    }

    /// What was kept under a key.
    fn cached(&self, _key: &CacheKey) -> Option<Cached> {
        None
    }

    /// Keeps something under a key while there is room.
    fn cache(&self, _key: CacheKey, _cached: Cached) {}

    /// Who draws jobs within it; none where nothing is drawn.
    fn subjobs(&self) -> Option<&dyn SubJobs> {
        None
    }

    /// How long it has waited for those.
    fn waited(&self) -> Duration {
        Duration::ZERO
    }
}

/// What one row is that a plugin asks the model of.
#[derive(Clone, Debug)]
pub(super) struct AskedRow {
    pub image: usize,
    pub branch: usize,
    pub role: Role,
    pub weight: f64,
    pub tag: String,
    pub region: Region,
    /// What the model is told, if not what the given row of that image and branch is.
    pub context: Option<Tensor>,
}

/// What a plugin asks the model.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub rows: Vec<AskedRow>,
    pub x: Tensor,
    /// The noise level, if not that of the stage.
    pub sigma: Option<f64>,
    /// LATENTD_NEXT and so on.
    pub inside: u32,
}

/// The model, for a stage around it.
pub(super) trait Model {
    /// Samples of these rows; else what the service answers, with why.
    fn evaluate(&self, asked: Asked) -> Result<Tensor, (u32, String)>;

    /// What a plugin's rules of attention keep under a name; `None` if none of them names it.
    fn bank(&self, plugin: &str, name: &str) -> Option<Arc<Bank>>;
}

/// What a stage has for its services to work on, and what it takes.
#[derive(Clone, Copy, Default)]
pub(super) struct AtHand<'a> {
    pub model: Option<&'a dyn Model>,
    /// The evaluation that the stage is of, for networks that look at it too.
    pub evaluated: Option<&'a Evaluated<'a>>,
    /// The text encoder: where images are told something.
    pub texts: Option<&'a Texts<'a>>,
    /// The VAE: where no other network is at work.
    pub coding: Option<&'a dyn ImageCoding>,
    /// Where attention is declared.
    pub attention: Option<&'a Declared>,
    /// Engines of all plugins: where an instance is at work.
    pub engines: Option<&'a dyn RunsEngines>,
    /// Whether other images of any size may be given in the place of those that are lent.
    pub any_size: bool,
    /// Where something is added in the UNet.
    pub adding: Option<&'a Adding>,
    /// Whether no network is at work, so that another job may be drawn.
    pub is_between: bool,
}

/// An evaluation with its latents.
pub(super) struct Evaluated<'a> {
    pub evaluation: &'a Evaluation,
    /// `(rows, channels, height, width)`.
    pub latents: &'a Tensor,
    /// What they are multiplied by for the UNet.
    pub scale: f64,
}

/// What a plugin declares of a pass's attention.
pub(super) struct Declared {
    pub stage: AttentionStage,
    pub rules: RefCell<Vec<Rule>>,
}

/// What a plugin adds in one evaluation.
pub(super) struct Adding {
    pub sizes: ResidualSizes,
    /// Of the evaluation.
    pub rows: usize,
    pub residuals: RefCell<Vec<Residual>>,
}

/// One call. Plugins have its address.
pub(super) struct Call<'a> {
    pub plugin: &'a str,
    /// The plugin's.
    pub version: &'a str,
    /// Kinds of library files that it may write and remove.
    pub saves: &'a [LibraryKind],
    /// The schema of its settings.
    pub settings: Option<&'a Json>,
    thread: ThreadId,
    /// How much of its work was told to be done.
    done: Mutex<f64>,
    pub job: &'a dyn Job,
    /// Where its processes are, if it runs in some of its own; who starts those knows what it is.
    pub remote: Option<&'a (dyn Any + Send + Sync)>,
    pub at_hand: AtHand<'a>,
    state: Mutex<State<'a>>,
}

/// What a call leaves, and what it works on.
pub(super) struct State<'a> {
    /// The instance's tensors and images; none while a job is planned.
    pub objects: Option<&'a RefCell<Objects>>,
    /// The files and networks of the instance or of the plan.
    pub opened: Option<&'a RefCell<Opened>>,
    /// What stages it takes part in, and the like; only while a job is planned.
    pub plan: Option<Answer>,
    /// Why the last service failed.
    pub error: String,
    /// What the last one that failed answered, whatever came after it.
    pub last_failure: Option<(u32, String)>,
    /// What the plugin left with `fail`.
    pub failure: Option<(u32, String)>,
    /// Handles by the slots that they take.
    pub replaced: BTreeMap<u32, u64>,
    /// MessagePack by its slot.
    pub replies: BTreeMap<u32, Vec<u8>>,
    pub notices: Vec<String>,
    /// What services gave, until the call ends.
    pub lent: Vec<Box<dyn Any>>,
    /// Pictures beside the results.
    pub artifacts: Vec<Artifact>,
    /// What was reserved until the call ends.
    pub reserved: Vec<Lease>,
    /// What an engine found, of a kind that finds things.
    pub detections: Option<Vec<Detection>>,
}

/// What a plugin answers to a plan.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Answer {
    pub wants: Vec<Want>,
    pub note: Vec<u8>,
    pub networks: Vec<Need>,
    /// Engines that it will run.
    pub engines: Vec<Needed>,
    pub subjobs: Vec<SubPlan>,
    /// Bytes that it will take beside networks.
    pub memory: u64,
}

/// A network that a plugin will run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Need {
    /// Its file's number.
    pub file: u64,
    /// Bytes of its weights, and of what it computes on the way.
    pub weights: u64,
    pub activations: u64,
}

impl Answer {
    /// Bytes that it takes: all of its networks, the largest run, and what it says beside.
    pub(super) fn planned_bytes(&self) -> u64 {
        let weights: BTreeMap<u64, u64> =
            self.networks.iter().map(|need| (need.file, need.weights)).collect();
        let run = self.networks.iter().map(|need| need.activations).max().unwrap_or_default();
        weights.into_values().fold(run.saturating_add(self.memory), u64::saturating_add)
    }
}

/// A stage that a plugin takes part in.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Want {
    pub stage: String,
    /// Shares of a pass's steps.
    pub from: f64,
    pub until: f64,
    /// Places in the UNet, as part and index; all if there are none.
    pub sites: Vec<(u32, u32)>,
}

impl Want {
    /// All steps of a stage.
    pub(super) fn all(stage: &str) -> Self {
        Self { stage: stage.to_owned(), from: 0.0, until: 0.0, sites: vec![] }
    }

    /// Whether a step is wanted.
    pub(super) fn has(&self, step: usize, steps: usize) -> bool {
        if self.from == 0.0 && self.until == 0.0 {
            return true;
        }
        let share = step as f64 / steps.max(1) as f64;
        share >= self.from && share < self.until
    }

    /// Whether a place in the UNet is wanted.
    pub(super) fn is_at(&self, (part, index): (u32, u32)) -> bool {
        let mut sites = self.sites.iter();
        self.sites.is_empty() || sites.any(|site| site.0 == part && [index, LATENTD_ANY].contains(&site.1))
    }
}

impl<'a> Call<'a> {
    pub(super) fn new(
        manifest: &'a Manifest,
        job: &'a dyn Job,
        objects: Option<&'a RefCell<Objects>>,
        plan: Option<Answer>,
    ) -> Self {
        let state = State {
            objects,
            opened: None,
            plan,
            error: String::new(),
            last_failure: None,
            failure: None,
            replaced: BTreeMap::new(),
            replies: BTreeMap::new(),
            notices: vec![],
            lent: vec![],
            artifacts: vec![],
            reserved: vec![],
            detections: None,
        };
        let at_hand = AtHand::default();
        Self {
            plugin: &manifest.name,
            version: &manifest.version,
            saves: &manifest.saves,
            settings: manifest.settings.as_ref(),
            thread: thread::current().id(),
            // Also that nothing is done yet can be told.
            done: Mutex::new(-1.0),
            job,
            remote: None,
            at_hand,
            state: Mutex::new(state),
        }
    }

    /// The same, where the stage has something for services to work on.
    pub(super) fn with_at_hand(self, at_hand: AtHand<'a>) -> Self {
        Self { at_hand, ..self }
    }

    /// Of a plugin that runs in processes of its own.
    pub(super) fn with_remote(self, remote: Option<&'a (dyn Any + Send + Sync)>) -> Self {
        Self { remote, ..self }
    }

    /// With the files and networks that it may name.
    pub(super) fn with_opened(self, opened: &'a RefCell<Opened>) -> Self {
        self.with(|state| state.opened = Some(opened));
        self
    }

    /// What the plugin is given of it.
    pub(super) fn pointer(&self) -> *mut latentd_call {
        std::ptr::from_ref(self).cast_mut().cast()
    }

    /// Whether more of its work is done than was told before; it is told then.
    pub(super) fn advances_to(&self, done: f64) -> bool {
        advances(&self.done, done)
    }

    /// Tells which share is done of something that is such a share of its work; from any thread.
    pub(super) fn telling(&self, share: f64) -> impl Fn(f64) + Sync {
        let Self { plugin, job, done, .. } = self;
        let begun = done.lock().unwrap_or_else(PoisonError::into_inner).max(0.0);
        move |of_it: f64| {
            let now = (begun + share * of_it).min(1.0);
            if share > 0.0 && advances(done, now) {
                job.progress(plugin, now, "");
            }
        }
    }

    /// Whether this is the thread that the plugin was called on.
    pub(super) fn is_its_thread(&self) -> bool {
        thread::current().id() == self.thread
    }

    pub(super) fn with<T>(&self, work: impl FnOnce(&mut State<'a>) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the call left; an error if the plugin's function answered so. `at` names the function.
    pub(super) fn end(self, status: u32, at: &str) -> Result<State<'a>> {
        let Self { plugin, job, state, .. } = self;
        let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
        if status <= 1 {
            return Ok(state);
        }
        Err(failed(plugin, at, status, &state, job.is_cancelled()))
    }
}

/// Whether more is done than was told before; it is told then.
fn advances(told: &Mutex<f64>, done: f64) -> bool {
    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
    let advances = done >= *told + LEAST_ADVANCE || (done == 1.0 && *told < 1.0);
    if advances {
        *told = done;
    }
    advances
}

/// The error that a plugin's answer is.
fn failed(plugin: &str, at: &str, status: u32, state: &State<'_>, is_cancelled: bool) -> Error {
    use latentd_plugin_api::abi as codes;
    if status == codes::LATENTD_CANCELLED && is_cancelled {
        return Error::new(Class::Cancelled, format!("cancelled in plugin '{plugin}'"));
    }
    let own = state.failure.as_ref().filter(|(of, _)| *of == status).map(|(_, text)| text.as_str());
    let service = state.last_failure.as_ref().filter(|(of, _)| *of == status).map(|(_, text)| text.as_str());
    let text = own.or(service).filter(|text| !text.is_empty());
    let text = text.map_or_else(|| format!("it answered {}", name_of(status)), str::to_owned);
    let class = match status {
        codes::LATENTD_INVALID => Class::InvalidParams,
        codes::LATENTD_MEMORY => Class::Memory,
        codes::LATENTD_UNSUPPORTED => Class::Unsupported,
        codes::LATENTD_NOT_FOUND => Class::NotFound,
        codes::LATENTD_BUSY => Class::Busy,
        codes::LATENTD_MODEL => Class::Model,
        _ => Class::Plugin,
    };
    Error::new(class, format!("plugin '{plugin}', {at}: {text}"))
}

//! The plugins that a request names: resolved with it, and told of in its pictures.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use latentd_client::protocol::{Bytes, ImageOut, PluginLine, PluginProgress, Txt2ImgParams};
use latentd_models::image::Picture;
use latentd_models::model::ModelShape;
use latentd_models::nn::Precision;
use latentd_models::pipeline;
use latentd_models::sampling::NoiseSource;
use tracing::warn;

use super::infotext::ToldEngine;
use super::notices::Notices;
use super::plugin_resources::StudioResources;
use super::studio::Studio;
use super::task::Watch;
use crate::error::{Class, Error, Result};
use crate::memory::{Base, CacheKey, Cached, Lease, Memory};
use crate::plugins::{
    Engine, Job, JobFacts, JobPlugins, Kind, PluginConfigs, PromptLists, Recorded, Resources, SubJobs, line,
};
use crate::schema::shorten;

/// Lines that plugins logged, in a result.
pub(super) const MOST_LOGGED: usize = 100;

/// What plugins may ask for of the job that they are part of.
pub(super) struct Asking<'a> {
    pub watch: &'a dyn Watch,
    pub memory: &'a Memory,
    pub rng: NoiseSource,
    pub resources: StudioResources<'a>,
    turn: Mutex<Turn>,
    /// What it draws with.
    bases: Vec<Base>,
    /// How many pictures are drawn.
    pictures: u32,
    /// Whether previews are asked for.
    previews: bool,
    /// Versions of plugins that the request wants.
    versions: BTreeMap<String, String>,
    /// What plugins logged.
    log: Mutex<Vec<PluginLine>>,
    /// Who draws jobs within it.
    subjobs: Option<&'a dyn SubJobs>,
}

/// Whose turn it is.
#[derive(Default)]
struct Turn {
    model: Option<Arc<ModelShape>>,
    /// How often it was another's.
    number: u32,
}

impl<'a> Asking<'a> {
    pub(super) fn new(
        watch: &'a dyn Watch,
        memory: &'a Memory,
        studio: &'a Arc<Studio>,
        rng: NoiseSource,
    ) -> Self {
        let resources = StudioResources { studio, watch, precision: Precision::F32 };
        let (turn, bases, versions, log) = Default::default();
        Self {
            watch,
            memory,
            rng,
            resources,
            turn,
            bases,
            pictures: 0,
            previews: false,
            versions,
            log,
            subjobs: None,
        }
    }

    /// The same, with versions of plugins that the request wants.
    pub(super) fn with_versions(self, versions: BTreeMap<String, String>) -> Self {
        Self { versions, ..self }
    }

    /// What plugins logged since it was asked last.
    pub(super) fn log(&self) -> Vec<PluginLine> {
        std::mem::take(&mut self.log.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The same, where jobs may be drawn within it.
    pub(super) fn with_subjobs(self, subjobs: &'a dyn SubJobs) -> Self {
        Self { subjobs: Some(subjobs), ..self }
    }

    /// The same, for networks that compute in this precision.
    pub(super) fn in_precision(mut self, precision: Precision) -> Self {
        self.resources.precision = precision;
        self
    }

    /// The same, of a job that begins with the first of these and draws with no others.
    pub(super) fn of_bases(self, bases: Vec<Base>) -> Self {
        let model = bases.first().map(|base| Arc::clone(&base.shape));
        Self { turn: Mutex::new(Turn { model, number: 0 }), bases, ..self }
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// While so many pictures are drawn, of which previews may be asked for.
    pub(super) fn showing(self, pictures: usize, previews: bool) -> Self {
        Self { pictures: u32::try_from(pictures).unwrap_or(u32::MAX), previews, ..self }
    }
}

impl Job for Asking<'_> {
    fn is_cancelled(&self) -> bool {
        self.watch.is_cancelled()
    }

    fn reserve(&self, bytes: u64, plugin: &str) -> Result<Lease> {
        self.memory.reserve_for_job(bytes, plugin, &|| self.watch.is_cancelled())
    }

    fn compute(&self, work: &mut (dyn FnMut() + Send)) {
        self.memory.device().run(work);
    }

    fn noise_source(&self) -> NoiseSource {
        self.rng
    }

    fn resources(&self) -> &dyn Resources {
        &self.resources
    }

    fn model(&self) -> Option<Arc<ModelShape>> {
        self.turn().model.clone()
    }

    fn model_is(&self, model: &Arc<ModelShape>) {
        let mut turn = self.turn();
        if !turn.model.as_ref().is_some_and(|own| Arc::ptr_eq(own, model)) {
            *turn = Turn { model: Some(Arc::clone(model)), number: turn.number.wrapping_add(1) };
        }
    }

    fn turn(&self) -> u32 {
        self.turn().number
    }

    fn base(&self) -> Option<Base> {
        let model = self.model()?;
        self.bases.iter().find(|base| Arc::ptr_eq(&base.shape, &model)).cloned()
    }

    fn bases(&self) -> &[Base] {
        &self.bases
    }

    fn pictures(&self) -> u32 {
        self.pictures
    }

    fn progress(&self, plugin: &str, share: f64, what: &str) {
        let (name, what) = (plugin.to_owned(), what.to_owned());
        self.watch.plugin_progress(PluginProgress { name, share, what });
    }

    fn wants_preview(&self) -> bool {
        self.previews
    }

    fn preview(&self, plugin: &str, picture: &Picture) {
        match picture.to_png() {
            Ok(png) => {
                let (width, height) = (picture.width as u32, picture.height as u32);
                let image = ImageOut { png: Some(Bytes(png)), width, height, ..Default::default() };
                self.watch.plugin_preview(plugin, image);
            }
            Err(error) => warn!(plugin, %error, "preview"),
        }
    }

    fn folder(&self, plugin: &str) -> Result<PathBuf> {
        self.resources.studio.plugins.own_folder(plugin)
    }

    fn versions(&self) -> &BTreeMap<String, String> {
        &self.versions
    }

    fn record(&self, plugin: &str, version: &str, event: &Recorded<'_>) {
        self.resources.studio.plugins.records.record(plugin, version, event);
        if let Some(line) = line(plugin, event) {
            let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            if log.len() < MOST_LOGGED {
                log.push(line);
            }
        }
    }

    fn configs(&self) -> Arc<PluginConfigs> {
        self.resources.studio.plugins.configs()
    }

    fn engine_names(&self, kind: Kind) -> Vec<String> {
        let studio = self.resources.studio;
        studio.plugins.engine_names(kind, &|kind| studio.library.names(kind))
    }

    fn cached(&self, key: &CacheKey) -> Option<Cached> {
        self.memory.cached(key)
    }

    fn cache(&self, key: CacheKey, cached: Cached) {
        self.memory.cache(key, cached);
    }

    fn subjobs(&self) -> Option<&dyn SubJobs> {
        self.subjobs
    }

    fn waited(&self) -> Duration {
        self.watch.waited()
    }
}

/// Settles what each does; what was settled `before` stays so.
pub(super) fn resolve(
    (params, lists): (&Txt2ImgParams, &PromptLists),
    settled: &Txt2ImgParams,
    (drawing, bases): (&pipeline::Txt2Img, Vec<Base>),
    (method, engines): (&'static str, Vec<Engine>),
    ((studio, watch), before): ((&Arc<Studio>, &dyn Watch), Option<&JobPlugins>),
    notices: &mut Notices,
) -> Result<JobPlugins> {
    let mut versions = params.plugin_versions.keys();
    let is_asked = |name: &String| {
        params.plugins.contains_key(name) || engines.iter().any(|engine| engine.plugin() == name)
    };
    // Within a job it is of what is around that, which may have more engines.
    if let Some(name) = versions.find(|name| drawing.depth == 0 && !is_asked(name)) {
        let name = shorten(name);
        let text = format!("plugin_versions.{name}: the request names no such plugin; remove it");
        return Err(Error::invalid(text));
    }
    if params.plugins.is_empty() && engines.is_empty() {
        return Ok(JobPlugins::default());
    }
    let asking = Asking::new(watch, &studio.device.memory, studio, drawing.rng).of_bases(bases);
    let asking = asking.with_versions(params.plugin_versions.clone());
    let pictures = drawing.batch_size.saturating_mul(drawing.n_iter);
    let asked = studio.plugins.settle(&params.plugins, before, &asking)?.with_lists(lists, pictures)?;
    // As it will be drawn, with the texts as they were written.
    let request = Txt2ImgParams {
        prompt: params.prompt.clone(),
        negative_prompt: params.negative_prompt.clone(),
        seed: i64::try_from(drawing.seed).unwrap_or(i64::MAX),
        subseed: drawing
            .variation
            .map_or(-1, |variation| i64::try_from(variation.subseed).unwrap_or(i64::MAX)),
        checkpoint: params.checkpoint.clone(),
        loras: params.loras.clone(),
        refiner_checkpoint: params.refiner_checkpoint.clone(),
        refiner_switch_at: params.refiner_switch_at,
        tiling: params.tiling,
        tiling_x: params.tiling_x,
        tiling_y: params.tiling_y,
        plugins: asked.told(),
        plugin_versions: params.plugin_versions.clone(),
        ..settled.clone()
    };
    let request = rmp_serde::to_vec_named(&request)
        .map_err(|error| Error::internal(format!("the request cannot be told to plugins: {error}")))?;
    let facts = JobFacts {
        method,
        request: &request,
        pictures: u32::try_from(pictures).unwrap_or(u32::MAX),
        batch: u32::try_from(drawing.batch_size).unwrap_or(u32::MAX),
        strict: params.strict,
        depth: drawing.depth,
    };
    let mut plugins = JobPlugins::resolve(asked, &facts, &asking)?;
    plugins.named = engines.len();
    let known = before.map_or(&[][..], |before| &before.engines);
    plugins.engines = engines.into_iter().map(|engine| engine.or_as_in(known)).collect();
    let needed = plugins.needed_engines();
    studio.plugins.plan_engines(&needed, known, &asking, &mut plugins.engines)?;
    for text in &plugins.notices {
        notices.not_applied(Class::Plugin, text.clone())?;
    }
    Ok(plugins)
}

/// What pictures tell of them: those that take part, with all of their parameters.
pub(super) fn told(told: Txt2ImgParams, plugins: &JobPlugins) -> Txt2ImgParams {
    // Read back from a picture, it is not rewritten once more.
    Txt2ImgParams { plugins: plugins.told(), rewrite: !plugins.may_rewrite(), ..told }
}

/// What pictures tell of engines that had a hand in them; those that the request itself names only if `all` did.
pub(super) fn told_engines(plugins: &JobPlugins, all: bool) -> Vec<ToldEngine> {
    let left_out = if all { 0 } else { plugins.named };
    plugins.engines.iter().skip(left_out).map(told_engine).collect()
}

/// What a picture tells of an engine.
pub(super) fn told_engine(engine: &Engine) -> ToldEngine {
    ToldEngine {
        kind: engine.kind.name().to_owned(),
        name: engine.entry.clone(),
        plugin: engine.plugin().to_owned(),
        version: engine.version().to_owned(),
    }
}

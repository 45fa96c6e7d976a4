//! `NAME.method`: methods that plugins have. As a job one is a task like ours; a quick one is called at once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use latentd_client::protocol::{Artifact, Bytes, ImageOut, LibraryKind, Pass, PluginParams, Txt2ImgParams};
use latentd_models::networks::standalone::Standalone;
use latentd_models::nn::Precision;
use latentd_models::sampling::NoiseSource;
use rmpv::Value;
use serde::Serialize;

use super::device::DeviceId;
use super::draw::Planned;
use super::plugins::Asking;
use super::studio::Studio;
use super::subcourse::Along;
use super::subjobs::{Around, expected, steps};
use super::subruns::{Drawn, SubRuns};
use super::task::{Run, Task, Watch};
use crate::error::{Class, Error, Result};
use crate::library::Pinned;
use crate::memory::{Base, CacheKey, Cached, Lease};
use crate::onnx::{Graph, Limits};
use crate::plugins::{
    HeldPicture, Job, Kind, Method, MethodKind, PluginConfigs, Recorded, Resources, Returned, WITHIN,
};

/// A method's job with everything settled.
pub(crate) struct PluginMethod {
    studio: Arc<Studio>,
    method: Method,
    /// What it will draw.
    subjobs: Vec<Planned>,
}

impl PluginMethod {
    /// Settles the parameters of a method of kind `job`, and has its plugin plan it.
    pub(crate) fn resolve(
        name: &str,
        params: &PluginParams,
        studio: &Arc<Studio>,
        watch: &dyn Watch,
    ) -> Result<Self> {
        let job = asking(studio, watch);
        let method = Method::settle(&studio.plugins, (name, MethodKind::Job), params, &job)?;
        let (needed, budget) = (method.planned_bytes(), studio.device.memory.budget());
        if needed > budget {
            let text =
                format!("{name}: it takes {needed} bytes, and {budget} may be taken in all (memory_bytes)");
            return Err(Error::new(Class::Memory, text));
        }
        let mut settled = Self { studio: Arc::clone(studio), method, subjobs: vec![] };
        if settled.method.subplans().next().is_some() {
            settled.subjobs = settled.around()?.planned(settled.method.subplans(), (studio, watch), &[])?;
        }
        Ok(settled)
    }

    /// What it is for jobs that are drawn within it: nothing is said but what their patches say.
    fn around(&self) -> Result<Around<'static>> {
        let usual = Txt2ImgParams::default();
        let (width, height) = (usual.width.unwrap_or(512) as usize, usual.height.unwrap_or(512) as usize);
        Ok(Around {
            request: value_of(&usual)?,
            depth: 0,
            beside: self.method.planned_bytes(),
            plugins: None,
            largest: self.method.largest_picture().unwrap_or((width, height)),
        })
    }
}

impl Task for PluginMethod {
    fn device(&self) -> DeviceId {
        self.studio.device.id
    }

    fn steps(&self) -> u32 {
        steps(&self.subjobs).saturating_add(1)
    }

    fn run(&self, run: &Run<'_>) -> Result<Vec<u8>> {
        let along = Along::new(run.watch, self.steps(), 0);
        let run = &Run { watch: &along, ..*run };
        run.watch.progress(self.method.short_name(), 0, self.steps(), None);
        let _expected = expected(&self.subjobs, &run.device.memory);
        let within = (self.around()?, &self.subjobs[..]);
        let subjobs = SubRuns::new(within, &self.studio, (run, &along), &Drawn::default());
        let returned = self.method.call(&asking(&self.studio, run.watch).with_subjobs(&subjobs))?;
        run.watch.progress(self.method.short_name(), 1, self.steps(), None);
        encoded(returned, Some((run.job, self.method.name())))
    }
}

/// Calls a method of kind `quick`.
pub(crate) fn quick_plugin_method(
    name: &str,
    params: &PluginParams,
    studio: &Arc<Studio>,
) -> Result<Vec<u8>> {
    let watch = Deadline(Instant::now());
    let job = Quick { asking: asking(studio, &watch) };
    let method = Method::settle(&studio.plugins, (name, MethodKind::Quick), params, &job)?;
    // It begins once its plugin is there and its parameters are read.
    let watch = Deadline(Instant::now());
    let job = Quick { asking: asking(studio, &watch) };
    encoded(method.call(&job)?, None)
}

fn asking<'a>(studio: &'a Arc<Studio>, watch: &'a dyn Watch) -> Asking<'a> {
    let precision = studio.settings.get().precision;
    let asking = Asking::new(watch, &studio.device.memory, studio, NoiseSource::default());
    asking.in_precision(precision).showing(0, true)
}

/// What a method gave with what latentd adds, as it is sent.
fn encoded(returned: Returned, job: Option<(&str, &str)>) -> Result<Vec<u8>> {
    let Returned { mut result, notices, artifacts } = returned;
    if let Some((job, method)) = job {
        result.push(("job".into(), job.into()));
        result.push(("method".into(), method.into()));
    }
    if !notices.is_empty() {
        let notices = notices.into_iter().map(Value::from).collect();
        result.push(("notices".into(), Value::Array(notices)));
    }
    if !artifacts.is_empty() {
        let packed = artifacts.into_iter().map(packed).collect::<Result<Vec<_>>>()?;
        result.push(("artifacts".into(), value_of(&packed)?));
    }
    let mut bytes = vec![];
    let wrong = |error| Error::internal(format!("the result cannot be encoded: {error}"));
    rmpv::encode::write_value(&mut bytes, &Value::Map(result)).map_err(wrong)?;
    Ok(bytes)
}

fn packed(artifact: crate::plugins::Artifact) -> Result<Artifact> {
    let crate::plugins::Artifact { plugin, name, picture, .. } = artifact;
    let (width, height) = (picture.width as u32, picture.height as u32);
    let png = Some(Bytes(picture.to_png()?));
    let picture = ImageOut { png, width, height, ..ImageOut::default() };
    Ok(Artifact { plugin, name, image: None, picture })
}

fn value_of(value: &impl Serialize) -> Result<Value> {
    let wrong =
        |error: &dyn std::fmt::Display| Error::internal(format!("the result cannot be encoded: {error}"));
    let bytes = rmp_serde::to_vec_named(value).map_err(|error| wrong(&error))?;
    rmpv::decode::read_value(&mut bytes.as_slice()).map_err(|error| wrong(&error))
}

/// Who waits for a quick method: until its time is up.
struct Deadline(Instant);

impl Watch for Deadline {
    fn is_cancelled(&self) -> bool {
        self.0.elapsed() > WITHIN
    }

    fn progress_of(&self, _: Option<Pass>, _: &str, _: (u32, u32), _: Option<f64>) {}

    fn preview(&self, _: Pass, _: u32, _: ImageOut) {}
}

/// What a quick method may ask for: nothing that a job should wait for its turn for.
struct Quick<'a> {
    asking: Asking<'a>,
}

impl Job for Quick<'_> {
    fn is_cancelled(&self) -> bool {
        self.asking.is_cancelled()
    }

    fn reserve(&self, bytes: u64, plugin: &str) -> Result<Lease> {
        self.asking.memory.reserve_beside_jobs(bytes, plugin)
    }

    fn compute(&self, work: &mut (dyn FnMut() + Send)) {
        self.asking.compute(work);
    }

    fn noise_source(&self) -> NoiseSource {
        self.asking.noise_source()
    }

    fn resources(&self) -> &dyn Resources {
        self
    }

    fn folder(&self, plugin: &str) -> Result<PathBuf> {
        self.asking.folder(plugin)
    }

    fn engine_names(&self, kind: Kind) -> Vec<String> {
        self.asking.engine_names(kind)
    }

    fn configs(&self) -> Arc<PluginConfigs> {
        self.asking.configs()
    }

    fn versions(&self) -> &BTreeMap<String, String> {
        self.asking.versions()
    }

    fn record(&self, plugin: &str, version: &str, event: &Recorded<'_>) {
        self.asking.record(plugin, version, event);
    }

    fn cached(&self, key: &CacheKey) -> Option<Cached> {
        self.asking.cached(key)
    }

    fn cache(&self, key: CacheKey, cached: Cached) {
        self.asking.cache(key, cached);
    }
}

fn no_networks<T>(file: &Pinned) -> Result<T> {
    let text =
        format!("'{}': a quick method runs no networks; a method of kind \"job\" does", file.item().name);
    Err(Error::new(Class::Unsupported, text))
}

impl Resources for Quick<'_> {
    fn picture(&self, field: &str, given: &Value) -> Result<Arc<dyn HeldPicture>> {
        self.asking.resources().picture(field, given)
    }

    fn most_picture_bytes(&self) -> u64 {
        self.asking.resources().most_picture_bytes()
    }

    fn file(&self, kind: LibraryKind, name: &str) -> Result<Arc<Pinned>> {
        self.asking.resources().file(kind, name)
    }

    fn graph(&self, file: &Pinned) -> Result<Arc<Graph>> {
        no_networks(file)
    }

    fn precision(&self) -> Precision {
        self.asking.resources().precision()
    }

    fn network(&self, file: &Pinned, _base: Option<&Base>) -> Result<Arc<dyn Standalone>> {
        no_networks(file)
    }

    fn check_engine(&self, kind: Kind, name: &str, field: &str) -> Result<()> {
        self.asking.resources().check_engine(kind, name, field)
    }

    fn names(&self, kind: LibraryKind) -> Vec<String> {
        self.asking.resources().names(kind)
    }

    fn known_sha256(&self, file: &Pinned) -> Option<String> {
        self.asking.resources().known_sha256(file)
    }

    fn graph_limits(&self) -> Limits {
        self.asking.resources().graph_limits()
    }
}

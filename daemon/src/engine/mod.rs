//! One thread for the device: takes jobs in order, brings their models into memory, draws, and hands back results.

mod hooks;
mod output;
mod plan;
mod txt2img;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Once};
use std::thread::JoinHandle;

use latentd_client::protocol::{ErrorName, ModelParams, ResidentModel, WireError};
use latentd_models::Error;
use latentd_models::nn::Precision;
use tracing::{error, info, warn};

use crate::jobs::Jobs;
use crate::library::{Found, Library};
use crate::residency::Residency;
pub(crate) use plan::{Plan, PlanLimits};

/// What jobs are drawn with.
pub(crate) struct Engine {
    pub jobs: Arc<Jobs>,
    pub library: Arc<Library>,
    pub residency: Arc<Residency>,
    pub plan_limits: PlanLimits,
    /// The checkpoint used when a request names none; the library's first if empty.
    pub default_checkpoint: String,
    /// What requests that leave it open are computed in.
    pub precision: Precision,
    /// Where `output.format = "file"` writes when a request names no folder.
    pub outputs_dir: PathBuf,
    pool: rayon::ThreadPool,
    /// The log says once that only the built-in checkpoint is there.
    told_built_in: Once,
}

impl Engine {
    /// An engine that computes with `threads` threads.
    pub(crate) fn new(
        jobs: Arc<Jobs>,
        library: Arc<Library>,
        residency: Arc<Residency>,
        plan_limits: PlanLimits,
        default_checkpoint: String,
        precision: Precision,
        outputs_dir: PathBuf,
        threads: usize,
    ) -> Result<Self, rayon::ThreadPoolBuildError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("compute-{index}"))
            .build()?;
        Ok(Self {
            jobs,
            library,
            residency,
            plan_limits,
            default_checkpoint,
            precision,
            outputs_dir,
            pool,
            told_built_in: Once::new(),
        })
    }

    /// Draws on a thread of its own until the jobs stop.
    pub(crate) fn start(self: &Arc<Self>) -> std::io::Result<JoinHandle<()>> {
        let engine = Arc::clone(self);
        std::thread::Builder::new().name("engine".into()).spawn(move || {
            while let Some(job) = engine.jobs.next() {
                info!(job = job.id, method = job.method, "started");
                let outcome = contain(|| txt2img::run(&engine, &job));
                engine.jobs.finish(&job, outcome);
            }
        })
    }

    /// Threads that compute.
    pub(crate) fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Brings a checkpoint into memory, now, on the caller's time.
    pub(crate) fn load(&self, params: &ModelParams) -> Result<ResidentModel, WireError> {
        let item = self.checkpoint(Some(&params.checkpoint))?;
        let precision = self.precision;
        contain(|| self.residency.acquire(&self.library, &item, precision, &self.pool))?;
        let gone =
            || WireError::new(ErrorName::Memory, format!("'{}' was unloaded again for another", item.name));
        self.residency.view(&item, precision).ok_or_else(gone)
    }

    /// The checkpoint that a request means.
    pub(crate) fn checkpoint(&self, name: Option<&str>) -> Result<Found, WireError> {
        match name {
            Some(name) => self.library.find(latentd_client::protocol::LibraryKind::Checkpoint, name),
            None => self.library.default_checkpoint(&self.default_checkpoint),
        }
    }

    /// What to tell who gets `item` without having chosen it, if there is nothing but what is built in.
    fn built_in_notice(&self, name: Option<&str>, item: &Found) -> Option<String> {
        if name.is_some() || !self.default_checkpoint.is_empty() || !item.is_built_in() {
            return None;
        }
        let notice = self.library.only_built_in();
        self.told_built_in.call_once(|| warn!("{notice}"));
        Some(notice)
    }
}

/// Runs `work`; a panic in it is an error of that work alone.
fn contain<T>(work: impl FnOnce() -> Result<T, WireError>) -> Result<T, WireError> {
    // Everything `work` shares is behind locks whose holders do not leave it half changed.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let what = panic_text(panic.as_ref());
        error!(panic = what, "a job panicked");
        Err(WireError::new(
            ErrorName::Internal,
            format!("the daemon failed at this job: {what}; please report it"),
        ))
    })
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("panic")
}

/// An error of the models as clients see it.
pub(crate) fn wire_error(error: &Error) -> WireError {
    let name = match error {
        Error::File { .. } | Error::Model { .. } | Error::NotFinite(_) => ErrorName::Model,
        Error::Request(_) => ErrorName::InvalidParams,
        Error::Unsupported(_) => ErrorName::Unsupported,
        Error::Memory { .. } => ErrorName::Memory,
        Error::Cancelled => ErrorName::Cancelled,
        Error::Hook(_) => ErrorName::Plugin,
        Error::Compute(_) => ErrorName::Internal,
    };
    let advice = match name {
        ErrorName::Memory => "; draw smaller or fewer pictures at once, or raise memory_bytes",
        ErrorName::Cancelled => " while it was drawn",
        _ => "",
    };
    WireError::new(name, format!("{error}{advice}"))
}

//! What a job is made of, whatever its method.

use std::sync::Arc;
use std::time::Duration;

use latentd_client::protocol::{ImageOut, OnDisconnect, Pass, PluginProgress};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::device::{Device, DeviceId};
use super::studio::Studio;
use crate::error::Result;

/// A request as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub method: Arc<str>,
    /// SHA-256 of its parameters as they were sent, without defaults: tells a repeated request from another.
    pub digest: [u8; 32],
    /// Bytes that its parameters take.
    pub bytes: u64,
}

/// A request that is resolved whole: model, seed, sizes, names and folders are settled, and it only has to be done.
pub(crate) trait Task: Send + Sync {
    /// What draws it.
    fn device(&self) -> DeviceId;

    /// Sampler steps in all, as far as can be told before.
    fn steps(&self) -> u32;

    /// Does it and gives the result as it is stored and sent. It changes nothing in the task, so a task may be run again,
    /// or inside the run of another.
    fn run(&self, run: &Run<'_>) -> Result<Vec<u8>>;
}

/// What a run is given.
pub(crate) struct Run<'a> {
    /// The job's id.
    pub job: &'a str,
    /// Seconds that it waited for its turn.
    pub waited_s: f64,
    pub device: &'a Device,
    pub watch: &'a dyn Watch,
}

/// Who follows a run, or a request while it is resolved. Must not wait.
pub(crate) trait Watch: Sync {
    /// Whether it should stop.
    fn is_cancelled(&self) -> bool;

    /// A stage or step is done: `step` of `steps`, with the seconds to go once that can be told.
    fn progress(&self, stage: &str, step: u32, steps: u32, eta_s: Option<f64>) {
        self.progress_of(None, stage, (step, steps), eta_s);
    }

    /// The same of a pass that is drawn.
    fn progress_of(&self, pass: Option<Pass>, stage: &str, steps: (u32, u32), eta_s: Option<f64>);

    /// A picture of the way there.
    fn preview(&self, pass: Pass, step: u32, image: ImageOut);

    /// A plugin goes on with what it does at the stage or step that was told of last.
    fn plugin_progress(&self, _progress: PluginProgress) {}

    /// A plugin's picture of the way there.
    fn plugin_preview(&self, _plugin: &str, _image: ImageOut) {}

    /// How long the run has waited for jobs within it.
    fn waited(&self) -> Duration {
        Duration::ZERO
    }
}

/// A method whose requests become jobs: what resolves its parameters, and does what was resolved. Implementing this is
/// all that a method takes beside its row.
pub(crate) trait JobMethod: Send + Sync + Sized + 'static {
    /// Its name on the wire.
    const NAME: &'static str;
    /// Its parameters, whose schema is the one that `api_info` shows.
    type Params: DeserializeOwned + JsonSchema + Send + 'static;
    /// Its result.
    type Result: Serialize + JsonSchema;

    /// What becomes of a job when the connection that asked for it is gone, as far as the parameters say.
    fn on_disconnect(_params: &Self::Params) -> OnDisconnect {
        OnDisconnect::Keep
    }

    /// Settles everything. May look at files; must not load or compute what takes long, except what names need that files
    /// are told by: of that `watch` is told, and can end it.
    fn resolve(params: Self::Params, studio: &Arc<Studio>, watch: &dyn Watch) -> Result<Self>;

    /// As [`Task::device`].
    fn device(&self) -> DeviceId;

    /// As [`Task::steps`].
    fn steps(&self) -> u32;

    /// As [`Task::run`].
    fn run(&self, run: &Run<'_>) -> Result<Self::Result>;
}

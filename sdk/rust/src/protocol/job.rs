//! `jobs.*`: what was asked for and what became of it.

use std::fmt;

use rmpv::Value;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::WireError;

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Its names and files are still being looked up; it has its place in the queue.
    Resolving,
    /// Waiting for its turn.
    Queued,
    /// Being drawn.
    Running,
    /// Done; the result is kept for a while.
    Finished,
    /// It went wrong.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
    /// The daemon ended before the job did.
    Interrupted,
    /// Something that a newer daemon knows.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

impl JobState {
    /// All that are known, with their names.
    pub const ALL: [(Self, &'static str); 7] = [
        (Self::Resolving, "resolving"),
        (Self::Queued, "queued"),
        (Self::Running, "running"),
        (Self::Finished, "finished"),
        (Self::Failed, "failed"),
        (Self::Cancelled, "cancelled"),
        (Self::Interrupted, "interrupted"),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(each, _)| *each == self).map_or("unknown", |(_, name)| name)
    }

    /// The one with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, each)| *each == name).map(|(each, _)| *each)
    }

    /// Whether nothing more happens, as far as can be told.
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Finished | Self::Failed | Self::Cancelled | Self::Interrupted => true,
            Self::Resolving | Self::Queued | Self::Running | Self::Unknown => false,
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `jobs.submit`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SubmitParams {
    /// What to do: "txt2img", "models.merge".
    pub method: String,
    /// That method's parameters; an empty map if left out.
    #[serde(default = "empty_map")]
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub params: Value,
    /// The job's id. Submitting the same request with the same id again gives the same job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What becomes of the job when the connection that submitted it ends before it does.
    #[serde(default, skip_serializing_if = "OnDisconnect::is_keep")]
    pub on_disconnect: OnDisconnect,
}

/// What becomes of a job when the connection that submitted it ends, whyever. Of several submits of one job the last
/// decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnDisconnect {
    /// It goes on, and its result is kept.
    #[default]
    Keep,
    /// It is cancelled.
    Cancel,
}

impl OnDisconnect {
    /// Whether it is what holds where nothing is said.
    // By reference, as serde asks.
    #[allow(clippy::trivially_copy_pass_by_ref)]
    pub(super) fn is_keep(&self) -> bool {
        *self == Self::Keep
    }
}

fn empty_map() -> Value {
    Value::Map(Vec::new())
}

/// A job by its id: `jobs.wait`, `jobs.get`, `jobs.cancel`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JobParams {
    /// The job's id.
    pub job: String,
}

/// What `jobs.submit` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobRef {
    /// The job's id.
    pub job: String,
}

/// `jobs.list`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct JobListParams {
    /// Only jobs in this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<JobState>,
    /// How many at most, the newest first; 100 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub limit: Option<u32>,
}

/// What `jobs.list` answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobList {
    /// The newest first.
    pub jobs: Vec<JobView>,
}

/// One job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobView {
    /// The job's id.
    pub job: String,
    /// Where it stands.
    pub state: JobState,
    /// The method that was submitted.
    pub method: String,
    /// When it was submitted, seconds since 1970.
    pub created_at: f64,
    /// When its turn came, seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<f64>,
    /// When it ended, seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<f64>,
    /// Sampler steps done, or tensors that are merged; while files are hashed to find one by its hash, before its turn, hundredths of that.
    pub step: u32,
    /// Sampler steps, or tensors, in all; while files are hashed before its turn, 100.
    pub steps: u32,
    /// Seconds to go, once that can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_s: Option<f64>,
    /// Why it did not finish.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<WireError>,
    /// Jobs before it in the queue, while it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u32>,
}

/// `jobs.subscribe`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SubscribeParams {
    /// One job; every job, and the library, if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// With `job`: replay what came after this event number; 0 (everything still known) if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
}

/// What `jobs.subscribe` answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Subscribed {
    /// The job as it stood, if one was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobView>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_of_a_newer_daemon_are_read() {
        for (text, expected) in [
            ("running", JobState::Running),
            ("resolving", JobState::Resolving),
            ("dreaming", JobState::Unknown),
        ] {
            let bytes = rmp_serde::to_vec_named(&text).expect("encodes");
            assert_eq!(rmp_serde::from_slice::<JobState>(&bytes).expect("decodes"), expected);
            let value = Value::from(text);
            assert_eq!(crate::codec::decode_value::<JobState>(value), Ok(expected), "{text}");
        }
        let schema = schemars::schema_for!(JobState).to_value().to_string();
        assert!(schema.contains("resolving") && !schema.contains("unknown"), "{schema}");
    }
}

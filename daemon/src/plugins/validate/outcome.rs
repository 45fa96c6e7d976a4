//! What is asked for, and what comes of it.

use std::time::Duration;

use latentd_client::protocol::PluginParams;
use serde::{Deserialize, Serialize};

/// How a plugin is validated.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// What inputs are made from.
    pub seed: u64,
    /// Of stages' calls; the schema's defaults if `None`.
    pub params: Option<PluginParams>,
    /// Of each check.
    pub limit: Duration,
}

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", content = "why", rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// As it should be.
    Ok,
    /// It may be meant so.
    Warned(String),
    Failed(String),
    /// It could not be looked at, or does not concern this plugin.
    Skipped(String),
}

/// What the child says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Line {
    /// What it tries now.
    At(String),
    /// What came of the check.
    Outcome(Outcome),
}

/// One check with what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checked {
    pub name: String,
    #[serde(flatten)]
    pub outcome: Outcome,
}

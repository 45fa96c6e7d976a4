//! `styles.*`: texts around prompts, by name.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `styles.save`: in place of one of its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SaveStyleParams {
    /// What requests call it in `styles`. Not empty, not "None", and without `#` at its begin.
    #[schemars(length(min = 1, max = 1000))]
    pub name: String,
    /// What stands around the prompt in the place of `{prompt}`, or behind it.
    #[serde(default)]
    #[schemars(length(max = 200_000))]
    pub prompt: String,
    /// The same of the negative prompt.
    #[serde(default)]
    #[schemars(length(max = 200_000))]
    pub negative_prompt: String,
}

/// `styles.delete`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeleteStyleParams {
    /// One that was saved; those in A1111's files are only read.
    #[schemars(length(min = 1, max = 1000))]
    pub name: String,
}

/// A style.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct StyleEntry {
    /// What requests call it.
    pub name: String,
    /// What stands around the prompt.
    pub prompt: String,
    /// What stands around the negative prompt.
    pub negative_prompt: String,
    /// The file that it is in.
    pub path: String,
    /// Whether it was saved here, and can be deleted; others are in A1111's files.
    pub saved: bool,
}

/// `styles.list`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StyleList {
    /// Each name once: saved ones, then those in A1111's `styles*.csv` beside its models or in models folders.
    pub styles: Vec<StyleEntry>,
    /// Files that could not be read, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

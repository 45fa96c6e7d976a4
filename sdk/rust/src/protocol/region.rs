//! Parts of a picture that are told something else.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ImageIn;

/// A part of the pictures with a prompt of its own. What guides each place counts 1 there all together: regions by their masks and
/// weights, and the request's prompt with what they leave; where they overlap and are more than 1, they share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegionParams {
    /// Where it is: white, or opaque if the mask has transparent pixels; what is between counts in part. It is laid over the whole
    /// picture, whatever its size.
    pub mask: ImageIn,
    /// What to draw there, in the grammar of prompts, beside networks: those are of whole pictures.
    #[schemars(length(max = 200_000))]
    pub prompt: String,
    /// How much of what guides there is its prompt; the rest is the request's.
    #[serde(default = "whole", skip_serializing_if = "is_whole")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub weight: f64,
}

impl RegionParams {
    /// All that guides there.
    pub fn new(mask: ImageIn, prompt: impl Into<String>) -> Self {
        Self { mask, prompt: prompt.into(), weight: whole() }
    }
}

fn whole() -> f64 {
    1.0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
#[allow(clippy::float_cmp, reason = "it is what is written")]
fn is_whole(weight: &f64) -> bool {
    *weight == whole()
}

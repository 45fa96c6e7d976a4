//! `prompt.tokens`: what an editor shows of a prompt while somebody types it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Emphasis;

/// A prompt, and how a request would have it read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PromptTokensParams {
    /// The prompt, as in `txt2img`.
    #[schemars(length(max = 200_000))]
    pub text: String,
    /// Whether it is a negative prompt, where `AND`, weights and networks are words.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub negative: bool,
    /// As in `txt2img`: embeddings for another one are words to it. If left out they are all taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
    /// Sampler steps, which changes are told in.
    #[schemars(range(min = 1, max = 1000))]
    pub steps: u32,
    /// The sampler: those that call the model twice a step count double.
    pub sampler_name: String,
    /// As in `txt2img`.
    pub emphasis: Emphasis,
    /// As in `txt2img`.
    #[schemars(range(min = 0, max = 74))]
    pub comma_padding_backtrack: u32,
    /// As in `txt2img`.
    pub use_old_scheduling: bool,
}

impl Default for PromptTokensParams {
    fn default() -> Self {
        Self {
            text: String::new(),
            negative: false,
            checkpoint: None,
            steps: 20,
            sampler_name: "Euler a".into(),
            emphasis: Emphasis::Original,
            comma_padding_backtrack: 20,
            use_old_scheduling: false,
        }
    }
}

/// What a prompt is to the models.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PromptTokens {
    /// The prompt without comments and networks.
    pub text: String,
    /// What is drawn together: what stands between the words `AND`.
    pub parts: Vec<PromptPart>,
    /// The networks that it names, in order.
    pub networks: Vec<PromptNetwork>,
    /// The embeddings that it names, in the order of their first use.
    pub embeddings: Vec<String>,
    /// Tokens of its longest text.
    pub tokens: u32,
    /// Tokens that have room in as many chunks as that takes, 75 each.
    pub room: u32,
    /// What somebody might not have meant; of what is composed with the number of the part, from 1.
    pub warnings: Vec<String>,
    /// Whether texts are left out for there are too many of them: their `chunks` are empty.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

/// One of the things that a prompt asks for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PromptPart {
    /// What the guidance scale is multiplied by for it.
    pub weight: f64,
    /// What it says at which steps.
    pub schedule: Vec<PromptStretch>,
    /// What it says, each text once; one that would only count behind the last step is in no stretch.
    pub texts: Vec<PromptText>,
}

/// A stretch of steps that are told one text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PromptStretch {
    /// The first of them; the first of all is 1. Of samplers that call the model twice a step these are calls. They are those
    /// that are drawn: as in A1111 a change comes one call later than `[from:to:when]` says, so that `[red:blue:2]` is red at
    /// steps 1 to 3, and at all of them if there are no more.
    pub from: u32,
    /// The last of them; the last of all is the number of steps, or of calls.
    pub until: u32,
    /// The place of what is said in the part's `texts`.
    pub text: u32,
}

/// A text that is encoded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PromptText {
    /// The text.
    pub text: String,
    /// Its tokens in chunks, without begin, end and padding.
    pub chunks: Vec<Vec<PromptToken>>,
}

/// A token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PromptToken {
    /// Its number in CLIP's vocabulary.
    pub id: u32,
    /// What it stands for.
    pub text: String,
    /// Whether a word ends with it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ends_word: bool,
    /// Its weight.
    pub weight: f64,
    /// The embedding whose vector stands here instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding: Option<String>,
}

/// A network that a prompt names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PromptNetwork {
    /// "lora", "hypernet", or an extension's.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// How it stands in the prompt.
    pub written: String,
    /// Whether the library has it.
    pub found: bool,
}

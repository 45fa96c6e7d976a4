//! What rows of a pass look up otherwise than its model says, as stages declare it once per pass and model.

use super::evaluation::{Evaluation, Role, Row};
use super::held::Held;
use crate::networks::unet::AttentionPlaces;
use crate::tensor::Tensor;

/// Where keys and values of a [`RuleChange::Set`] come from; one entry, or one per picture of the pass.
#[derive(Clone, Debug, PartialEq)]
pub enum RuleKeys {
    /// Tokens `(n, tokens, width)` as the model is told them, through each block's own projections.
    Context(Tensor),
    /// Keys and values `(n, tokens, channels)` of one attention.
    KeyValue(Tensor, Tensor),
}

/// What a rule does. Masks are `(height, width)` over the canvas, of any size: of a tile, its part counts.
#[derive(Clone, Debug, PartialEq)]
pub enum RuleChange {
    /// What the model's own keys find counts so much, and where.
    Own {
        /// What it counts.
        weight: f64,
        /// Where; everywhere if `None`.
        mask: Option<Tensor>,
    },
    /// What is found in further keys, with a softmax of their own, is added.
    Set {
        /// Its keys.
        keys: RuleKeys,
        /// What it counts.
        weight: f64,
        /// Where; everywhere if `None`.
        mask: Option<Tensor>,
    },
    /// Every place finds its own value; of self-attention.
    Identity,
    /// Further keys and values in the softmax of the model's own.
    Append {
        /// Its keys and values.
        keys: RuleKeys,
        /// What its values are multiplied by.
        weight: f64,
    },
    /// Added to the scores of the model's own keys, for all heads: `(1 or queries, keys)`.
    Bias(Tensor),
    /// What keys and values are made of is kept under this name, until it is again; of self-attention.
    Capture(String),
    /// What is kept under this name is appended, through each block's own projections.
    FromBank {
        /// The name.
        bank: String,
        /// What its values are multiplied by.
        weight: f64,
    },
    /// The attention that each key receives is kept under this name, `(1, keys)`: the mean over heads, summed over queries.
    Received(String),
}

/// Something that rows of a pass look up otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Who says so, for errors.
    pub owner: String,
    /// In which attentions.
    pub places: AttentionPlaces,
    /// Of rows of these roles; all if there are none.
    pub roles: Vec<Role>,
    /// Of this branch of guidance; all if `None`.
    pub branch: Option<usize>,
    /// Of this image, counted over the request; all if `None`.
    pub image: Option<usize>,
    /// Of rows with exactly this tag.
    pub tag: String,
    /// Shares of the pass's steps, the second one not included; all if both are 0.
    pub span: (f64, f64),
    /// What.
    pub change: RuleChange,
    /// Dropped with what the pass's network makes of it.
    pub held: Held,
}

impl Rule {
    /// Whether it holds for a row.
    pub(super) fn is_for(&self, row: &Row, evaluation: &Evaluation) -> bool {
        let (from, until) = self.span;
        let share = evaluation.step as f64 / evaluation.steps.max(1) as f64;
        (self.roles.is_empty() || self.roles.contains(&row.role))
            && self.branch.is_none_or(|branch| branch == row.branch)
            && self.image.is_none_or(|image| image == row.image)
            && *self.tag == *row.tag
            && (self.span == (0.0, 0.0) || (from..until).contains(&share))
    }
}

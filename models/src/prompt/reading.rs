//! How a prompt is read, where A1111 lets its users choose.

use std::fmt;

use super::emphasis::{Piece, Placed, parse_placed};
use crate::Result;

/// What brackets do to the words in them; A1111's option `emphasis`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Emphasis {
    /// Weights multiply what the text encoder gives, whose mean is restored.
    #[default]
    Original,
    /// Brackets are text, and so is `BREAK`.
    None,
    /// Brackets are taken out, and weigh nothing.
    Ignore,
    /// Weights multiply what the text encoder gives.
    NoNorm,
}

impl Emphasis {
    /// All of them, and A1111's names.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Original, "Original"),
        (Self::None, "None"),
        (Self::Ignore, "Ignore"),
        (Self::NoNorm, "No norm"),
    ];

    /// A1111's name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(each, _)| *each == self).map_or("", |(_, name)| name)
    }
}

impl fmt::Display for Emphasis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How prompts are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reading {
    /// What brackets do.
    pub emphasis: Emphasis,
    /// How many tokens back a comma may stand for a chunk to end there instead of within a phrase; 0 for none.
    pub comma_padding_backtrack: usize,
    /// Whether a number below 1 is a share of the steps and all others are steps, in `[from:to:when]`.
    pub use_old_scheduling: bool,
}

impl Default for Reading {
    fn default() -> Self {
        Self { emphasis: Emphasis::Original, comma_padding_backtrack: 20, use_old_scheduling: false }
    }
}

impl Reading {
    /// A text's stretches of one weight, and its breaks.
    pub fn pieces(&self, text: &str) -> Result<Vec<Piece>> {
        Ok(self.placed(text)?.into_iter().map(|placed| placed.piece).collect())
    }

    /// The same, with where each stands.
    pub(super) fn placed(&self, text: &str) -> Result<Vec<Placed>> {
        match self.emphasis {
            Emphasis::Original | Emphasis::NoNorm => parse_placed(text),
            Emphasis::None => Ok(vec![Placed::whole(text)]),
            Emphasis::Ignore => {
                let mut all = parse_placed(text)?;
                for placed in &mut all {
                    if let Piece::Text(_, weight) = &mut placed.piece {
                        *weight = 1.0;
                    }
                }
                Ok(all)
            }
        }
    }
}

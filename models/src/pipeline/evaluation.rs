//! What a model evaluation is of. Nothing may rely on the order of rows in a batch: each says whose it is.

use std::sync::Arc;

use crate::files::Prediction;
use crate::prompt::Conditioning;
use crate::tensor::Tensor;

/// What a row's prediction is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// What is wanted.
    Cond,
    /// What is steered away from.
    Uncond,
    /// Something else, which whoever asked for it combines.
    Other,
}

/// A part of a picture, in pixels of the canvas it is a part of; it may hang over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Region {
    /// Pixels from the left.
    pub x: i64,
    /// Pixels from the top.
    pub y: i64,
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Pixels in a row of the whole.
    pub canvas_width: usize,
    /// Rows of the whole.
    pub canvas_height: usize,
}

impl Region {
    /// All of a picture.
    pub fn whole(width: usize, height: usize) -> Self {
        Self { x: 0, y: 0, width, height, canvas_width: width, canvas_height: height }
    }
}

/// One row of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The image it is of, counted over the whole request.
    pub image: usize,
    /// That image's seed.
    pub seed: u64,
    /// The branch of its image's guidance.
    pub branch: usize,
    /// What its prediction is taken for.
    pub role: Role,
    /// The branch's weight.
    pub weight: f64,
    /// Where the branch counts, `(height, width)` of latents; everywhere if `None`.
    pub mask: Option<Arc<Tensor>>,
    /// The part of the picture that it shows.
    pub region: Region,
    /// Who asked for it: empty for the sampler.
    pub tag: Arc<str>,
    /// What the model is told.
    pub conditioning: Arc<Conditioning>,
}

/// What a pass is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PassKind {
    /// The request's own.
    Base,
    /// The second one of a hires fix.
    Hires,
}

/// One evaluation of the model: by the sampler, of all images of a pass, or by a stage around the model.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// What it is of.
    pub rows: Vec<Row>,
    /// Jobs around this one: 0 for a request of its own.
    pub depth: u32,
    /// What the pass is for.
    pub pass: PassKind,
    /// Which pass of its kind.
    pub pass_index: usize,
    /// The step, counted from 0 within the pass.
    pub step: usize,
    /// Steps of the pass.
    pub steps: usize,
    /// The model call, counted from 0 within the pass: some samplers make several a step.
    pub call: usize,
    /// The noise level.
    pub sigma: f64,
    /// The timestep of that level, fractional.
    pub timestep: f32,
    /// What the model predicts.
    pub prediction: Prediction,
    /// Rows and columns of latents: each is a token of the first block.
    pub latents: (usize, usize),
}

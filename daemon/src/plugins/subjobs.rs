//! Jobs within a job: what a plugin plans, what it asks for, and what it is given of them.

use super::objects::Image;
use crate::error::Result;

/// How deep jobs may lie within one another.
pub(crate) const MOST_DEPTH: u32 = 3;

/// One that a plan tells of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SubPlan {
    /// The planner's number for it, not 0.
    pub key: u32,
    pub method: String,
    /// A merge patch over the job's request, as MessagePack.
    pub patch: Vec<u8>,
    /// Runs in the whole job: about, and at most.
    pub expected: u32,
    pub most: u32,
    /// Pictures of one run, at most.
    pub batch: u32,
    /// Plugins that stay out of it.
    pub without: Vec<String>,
}

/// One that is to be drawn now.
#[derive(Clone, Debug, Default)]
pub(crate) struct SubJob {
    /// The plan's number; 0 if it was not planned.
    pub key: u32,
    pub method: String,
    /// A merge patch over the planned request.
    pub patch: Vec<u8>,
    pub images: Vec<SubImage>,
}

/// A picture of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct SubImage {
    /// The plan's if `None`.
    pub prompt: Option<String>,
    pub negative: Option<String>,
    pub seed: u64,
    pub subseed: u64,
    /// What it begins with, and where it is drawn.
    pub init: Option<Image>,
    pub mask: Option<Image>,
    /// The job's picture that it is for.
    pub image: usize,
}

/// What was drawn.
#[derive(Clone, Debug, Default)]
pub(crate) struct SubPictures {
    pub pictures: Vec<SubPicture>,
    pub notices: Vec<String>,
}

/// A picture of it.
#[derive(Clone, Debug)]
pub(crate) struct SubPicture {
    pub image: Image,
    pub seed: u64,
    pub infotext: String,
}

/// Who draws jobs within a job.
pub(crate) trait SubJobs: Sync {
    /// Draws one of a plugin's; `told` is told after each step which share is done. An error within is that of the job within; one
    /// without is of what was asked, or ends the job.
    fn draw(&self, plugin: &str, asked: SubJob, told: &(dyn Fn(f64) + Sync)) -> Result<Result<SubPictures>>;
}

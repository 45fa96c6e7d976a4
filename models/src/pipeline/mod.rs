//! From a request to pictures: the stages in order, and the [`Hooks`] through which a caller watches and
//! changes them.

mod denoiser;
mod hooks;
mod model;
mod times;
mod txt2img;

pub use hooks::{Hooks, NoHooks, Progress, Stage};
pub use model::{Model, ModelSummary};
pub use txt2img::{Output, Txt2Img, txt2img};

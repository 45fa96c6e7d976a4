//! What a latentd plugin and its host say to each other.
//!
//! [`abi`] is the C ABI: structs, tables, codes and ids, from which `include/latentd.h` is made. The rest is for plugins in
//! Rust: a [`Plugin`], a trait for each stage that it takes part in, and one line of [`export!`]. None of it needs `unsafe`;
//! a panic is a failure of the job, not of the daemon.
//!
//! ```text
//! struct Invert;
//!
//! impl Plugin for Invert {
//!     fn new(_job: &Job<'_>) -> Result<Self> {
//!         Ok(Self)
//!     }
//! }
//!
//! impl ImagePost for Invert {
//!     fn image_post(&self, stage: &Pictures<'_>) -> Result<()> {
//!         for picture in stage.pictures() {
//!             let mut new = picture.image.like()?;
//!             for (new, old) in new.pixels_mut().iter_mut().zip(picture.image.read()?.iter()) {
//!                 *new = 255 - old;
//!             }
//!             picture.replace(new)?;
//!         }
//!         Ok(())
//!     }
//! }
//!
//! latentd_plugin_api::export!(Invert, "../invert.toml", [ImagePost]);
//! ```

pub mod abi;
mod call;
mod engine_calls;
#[doc(hidden)]
pub mod engine_tables;
mod engines;
mod error;
pub mod export;
mod given;
mod handed_over;
mod host;
mod image;
mod inputs;
mod job;
mod library;
mod mask;
mod methods;
mod models;
mod networks;
mod onnx;
mod ops;
mod running;
mod services;
mod stages;
mod subjobs;
mod tensor;
mod vae;

pub use call::Call;
pub use engine_calls::{Detected, EngineCall, EngineKind, EngineResult};
pub use engines::{
    Detector, EngineRun, Entry, Found, Preprocessor, Restorer, Tagger, Upscaler, UpscalerFacts, Upscaling,
};
pub use error::{Error, Result};
pub use given::{File, FileOr, GivenImage};
pub use handed_over::HandedOver;
pub use image::{Image, NewImage};
pub use inputs::{Input, Outputs};
pub use job::{Job, JobPlan, Plan, Plugin};
pub use library::{FileInfo, SaveFile};
pub use mask::Mask;
pub use methods::{MethodCall, Methods, Sent};
pub use models::{Model, ModelSite};
pub use networks::{Network, NetworkEntry, NetworkInfo, NetworkPort, NetworkSize, Values};
pub use onnx::Graph;
pub use ops::{Border, Filter, Made, Node, Operand, Ops, Reduction};
pub use stages::{
    Ask, Attention, BankKept, Batch, BatchPost, Begun, Block, Combine, Cond, Conditioning, Conds,
    ControlResiduals, Controlling, Crop, Declaring, DenoiseBefore, DenoiseCombine, DenoiseWrap, Denoising,
    Encoded, Evaluation, ImagePost, InfotextParse, InfotextWrite, Inside, LatentFinal, Latents, NoiseInit,
    Part, Pass, PassBegin, PassKind, Passing, Patch, Picture, Pictures, PromptTags, PromptText, Reading,
    Region, RequestRewrite, Residual, ResidualAt, Rewrite, Role, Row, Tag, TagAnswer, Token, UNetBlock,
    Where, Wrap, Writing,
};
pub use subjobs::{SubImage, SubJob, SubPicture, SubPlan, SubResult};
pub use tensor::{Kept, NewTensor, Tensor};

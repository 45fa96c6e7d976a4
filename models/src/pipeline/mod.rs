//! From a request to pictures.
//!
//! Conditioning, start, the sampler's loop over guidance, pixels: one way, each stage given all it needs. A caller
//! watches through [`Watch`], changes things through [`Stages`], and lends networks through [`Components`].

mod attention;
mod attention_rules;
mod components;
mod conditioning;
mod conds;
mod contexts;
mod decode;
mod denoiser;
mod draw;
mod encode;
mod evaluation;
mod evaluator;
mod freed;
mod guidance;
mod handles;
mod held;
mod hires;
mod image_conditioning;
mod image_texts;
mod img2img;
mod lent_vae;
mod masks;
mod networks;
mod pass;
mod pass_context;
mod pass_plan;
mod previews;
mod regions;
mod request;
mod residuals;
mod restoration;
mod sampling_options;
mod second_pass;
mod soft_inpainting;
mod stages;
mod start;
mod texts;
mod time_embeddings;
mod txt2img;
mod unet_blocks;
mod watch;

pub use attention_rules::{Rule, RuleChange, RuleKeys};
pub use components::Components;
pub use decode::LatentDecoder;
pub use draw::Output;
pub use evaluation::{Evaluation, PassKind, Region, Role, Row};
pub use guidance::{Branch, Guidance, Span};
pub use handles::{Handle, Handles};
pub use held::Held;
pub use hires::{Hires, HiresSize, HiresUpscaler};
pub use image_texts::{TextFacts, TextNeeds, texts_of};
pub use img2img::{Img2Img, InitImage, MaskedContent, img2img};
pub use previews::PreviewDecoder;
pub use regions::RegionPrompt;
pub use request::Txt2Img;
pub use residuals::Residual;
pub use restoration::FaceRestoration;
pub use sampling_options::{SamplingOptions, SkipOptions, Skipped};
pub use soft_inpainting::SoftInpainting;
pub use stages::{
    AttentionStage, Cond, ConditioningStage, ControlResiduals, DenoiseBefore, DenoiseCombine, DenoiseWrap,
    Evaluate, Exchanged, ImageCoding, ImagePost, LatentFinal, NoStages, NoiseInit, PassBegin, Picture,
    Stages, TextEncoding, UNetBlock, Wants,
};
pub use start::Start;
pub use texts::Texts;
pub use txt2img::txt2img;
pub use watch::{NoWatch, Phase, Progress, Watch};

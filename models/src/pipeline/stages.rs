//! Where a picture can be changed on its way. Each stage is given one struct of plain numbers and handles of tensors.

use std::ops::Range;
use std::sync::Arc;

use super::attention_rules::Rule;
use super::evaluation::{Evaluation, PassKind, Role};
use super::handles::{Handle, Handles};
use super::residuals::Residual;
use super::restoration::FaceRestoration;
use crate::image::{self, RgbImage};
use crate::model::ModelShape;
use crate::networks::attention_bank::Bank;
use crate::networks::unet_residuals::ResidualSizes;
use crate::networks::unet_sites::Site;
use crate::prompt::{Chunk, Conditioning};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Which stages somebody wants to take part in; what nobody wants costs nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a stage of its own")]
pub struct Wants {
    /// [`Stages::pass_begin`].
    pub pass_begin: bool,
    /// [`Stages::conditioning`].
    pub conditioning: bool,
    /// [`Stages::noise_init`].
    pub noise_init: bool,
    /// [`Stages::denoise_before`].
    pub denoise_before: bool,
    /// [`Stages::denoise_wrap`].
    pub denoise_wrap: bool,
    /// [`Stages::control_residuals`].
    pub control_residuals: bool,
    /// [`Stages::attention`].
    pub attention: bool,
    /// [`Stages::unet_block`].
    pub unet_block: bool,
    /// [`Stages::denoise_combine`].
    pub denoise_combine: bool,
    /// [`Stages::latent_final`].
    pub latent_final: bool,
    /// [`Stages::image_post`].
    pub image_post: bool,
}

impl Wants {
    /// All of them.
    pub const ALL: Self = Self {
        pass_begin: true,
        conditioning: true,
        noise_init: true,
        denoise_before: true,
        denoise_wrap: true,
        control_residuals: true,
        attention: true,
        unet_block: true,
        denoise_combine: true,
        latent_final: true,
        image_post: true,
    };
}

/// A pass begins.
#[derive(Clone, Debug)]
pub struct PassBegin {
    /// What it is for.
    pub pass: PassKind,
    /// Which of its kind.
    pub index: usize,
    /// Images before it in the request.
    pub first_image: usize,
    /// One per image.
    pub seeds: Vec<u64>,
    /// Pixels in a row, and rows.
    pub size: (usize, usize),
    /// Its steps.
    pub steps: usize,
    /// As `size`, of the request's own pass.
    pub base: (usize, usize),
    /// As `size`, of a second one if there is any.
    pub hires: Option<(usize, usize)>,
    /// How far it goes from what it begins with; `None` from noise alone.
    pub strength: Option<f64>,
    /// How deep the request lies within others.
    pub depth: u32,
}

/// What somebody puts in the place of what one image begins with; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exchanged {
    /// A picture in [−1, 1] of the shape of the one that it takes the place of.
    pub init: Option<Tensor>,
    /// Where latents are drawn, `(1, height / 8, width / 8)`, from 1 for anew to 0.
    pub latent_mask: Option<Tensor>,
    /// The same of pixels, `(1, height, width)`, for an inpainting checkpoint.
    pub conditioning_mask: Option<Tensor>,
}

/// One text that a branch of an image's guidance is told.
#[derive(Clone, Debug)]
pub struct Cond {
    /// The image, counted over the whole request.
    pub image: usize,
    /// The branch of its guidance.
    pub branch: usize,
    /// What the branch is taken for.
    pub role: Role,
    /// The model calls of the pass for which it counts, counted from 0; the last range may have no end but `usize::MAX`.
    pub calls: Vec<Range<usize>>,
    /// The text, without networks and schedule.
    pub text: Arc<str>,
    /// What the text encoder took, with the chunks that made it as long as what the prompt says at other steps. Where other
    /// prompts are longer, `conditioning` goes on behind them.
    pub chunks: Arc<[Chunk]>,
    /// What became of it; may be replaced by one of the same sizes.
    pub conditioning: Arc<Conditioning>,
}

/// Encodes texts as the request's own are.
pub trait TextEncoding {
    /// The chunks of a text, its emphasis applied; it has no schedule and no networks.
    fn chunks(&self, text: &str) -> Result<Vec<Chunk>>;

    /// What becomes of chunks: `(1, 77 · chunks, width)`. `like` counts the stage's conds: the chunks take its place among the
    /// texts of its prompt, whose mean emphasis restores together, and become as long as it. Alone if `None`.
    fn encode(&self, chunks: &[Chunk], like: Option<usize>) -> Result<Conditioning>;
}

/// What a pass's images are told is there: when a pass begins, and each time another checkpoint goes on with it.
pub struct ConditioningStage<'a> {
    /// All of the pass, each image's branches in their order.
    pub conds: &'a mut [Cond],
    /// The text encoder that made them.
    pub encoding: &'a dyn TextEncoding,
}

/// The initial noise is drawn.
#[derive(Clone, Copy, Debug)]
pub struct NoiseInit {
    /// `(batch, channels, height, width)`, of unit variance, before it is scaled by the first level.
    pub noise: Handle,
}

/// The sampler is about to ask the model.
#[derive(Clone, Debug)]
pub struct DenoiseBefore<'a> {
    /// What the evaluation is of.
    pub evaluation: &'a Evaluation,
    /// Which images, counted over the whole request.
    pub images: Range<usize>,
    /// One per image.
    pub seeds: &'a [u64],
    /// `(batch, channels, height, width)`: the noisy latents, one per image.
    pub latents: Handle,
}

/// The model is about to be asked.
#[derive(Clone, Copy, Debug)]
pub struct DenoiseWrap<'a> {
    /// What the evaluation is of.
    pub evaluation: &'a Evaluation,
    /// `(rows, channels, height, width)`: the noisy latents, one per row.
    pub x: &'a Tensor,
}

/// Residuals may be added in the UNet.
#[derive(Clone, Copy, Debug)]
pub struct ControlResiduals<'a> {
    /// What the evaluation is of: one row per sample of `latents`.
    pub evaluation: &'a Evaluation,
    /// `(rows, channels, height, width)`, scaled as the UNet sees them, without what it is shown behind them.
    pub latents: Handle,
    /// Of what residuals are added to.
    pub sizes: &'a ResidualSizes,
}

/// A pass's model is ready.
#[derive(Clone, Debug)]
pub struct AttentionStage {
    /// Images of the pass, counted over the request.
    pub images: Range<usize>,
    /// Width of the tokens that the model is told.
    pub context_width: usize,
    /// What the model makes of one of them: keys and values for each cross-attention.
    pub bytes_per_token: usize,
    /// What all self-attentions together are made of, for one row of the pass's size.
    pub bytes_of_sources: usize,
}

/// Something goes by in the UNet, of the rows that are evaluated together.
#[derive(Clone, Debug)]
pub struct UNetBlock<'a> {
    /// What the evaluation is of; of its rows, these are here.
    pub evaluation: &'a Evaluation,
    /// In the order of the tensors.
    pub rows: Range<usize>,
    /// Which of the groups that the rows are evaluated in, one after the other.
    pub group: usize,
    /// How many there are.
    pub groups: usize,
    /// Where it goes by.
    pub site: Site,
    /// `(rows, channels, height, width)`, as f32 of the network's precision.
    pub h: Handle,
    /// As `h`, with channels of its own; what will be joined to `h`, in the output part. `h` may be larger by a row or a
    /// column, which will be left out.
    pub skip: Option<Handle>,
}

/// Predictions are there, and not yet one.
#[derive(Clone, Debug)]
pub struct DenoiseCombine<'a> {
    /// What the evaluation is of.
    pub evaluation: &'a Evaluation,
    /// Which images, counted over the whole request.
    pub images: Range<usize>,
    /// One per image.
    pub seeds: &'a [u64],
    /// What differences to what is steered away from are multiplied by.
    pub scale: f64,
    /// `(batch, channels, height, width)`: the noisy latents that were looked at, one per image.
    pub latents: Handle,
    /// Predictions of the noise-free latents, one per row: `(rows, channels, height, width)`.
    pub rows: Handle,
    /// What guidance makes of them, one per image: `(batch, channels, height, width)`. The last word.
    pub guided: Handle,
}

/// The sampler has ended.
#[derive(Clone, Copy, Debug)]
pub struct LatentFinal {
    /// `(batch, channels, height, width)` in the model's scale.
    pub latents: Handle,
}

/// A picture and what draws it.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// The pixels.
    pub image: RgbImage,
    /// The seed that draws it alone.
    pub seed: u64,
    /// Its place in the request.
    pub index: usize,
}

/// Codes pictures as the request's own are.
pub trait ImageCoding {
    /// Latents `(1, channels, height / 8, width / 8)` in the model's scale of a picture: one of those that it may be, which the
    /// seed says, as a request with that seed begins with.
    fn encode(&self, image: RgbImage, seed: u64) -> Result<Tensor>;

    /// The picture of latents `(1, channels, height, width)` in the model's scale.
    fn decode(&self, latents: &Tensor) -> Result<RgbImage>;

    /// Somebody else may need the room that it works in: it has it again once it is asked.
    fn rest(&self) {}
}

/// All pictures of a pass, before anything is composed over them.
pub struct ImagePost<'a> {
    /// To be changed; as many as there are.
    pub pictures: &'a mut [Picture],
    /// The VAE that made them.
    pub coding: &'a dyn ImageCoding,
}

/// Who evaluates the model for a stage around it.
pub trait Evaluate {
    /// Samples, that is predictions of the noise-free latents, `(rows, channels, height, width)`, of noisy latents `x` of
    /// the same shape, one of `evaluation`'s rows each. Any of their fields may be another than the sampler's.
    ///
    /// Without `stages` the model is alone: nobody takes part within it.
    ///
    /// # Errors
    /// [`crate::Error::Request`] if x is larger than what the pass draws, or what is asked is no part of it.
    fn evaluate(
        &mut self,
        stages: Option<&mut dyn Stages>,
        evaluation: &Evaluation,
        x: &Tensor,
    ) -> Result<Tensor>;

    /// The timestep of a noise level, fractional.
    fn timestep(&self, sigma: f64) -> f32;

    /// What somebody's rules of attention keep under a name; `None` if none of them names it.
    fn bank(&self, _owner: &str, _name: &str) -> Option<Arc<Bank>> {
        None
    }
}

/// What takes part in drawing. Every method has a default that does nothing. An error from any of them ends the request.
pub trait Stages {
    /// Which stages are wanted; asked at the begin of each pass.
    fn wants(&self) -> Wants {
        Wants::default()
    }

    /// A pass begins. What its images begin with instead, one for each; or nothing at all. Only of pictures.
    fn pass_begin(&mut self, _stage: &PassBegin) -> Result<Vec<Exchanged>> {
        Ok(vec![])
    }

    /// The networks of this model draw from now on: as each pass begins, before its images are told something, and when
    /// another checkpoint goes on with it.
    fn model(&mut self, _model: &Arc<ModelShape>) {}

    /// What a pass's images are told is there.
    fn conditioning(&mut self, _stage: &mut ConditioningStage) -> Result<()> {
        Ok(())
    }

    /// The initial noise is drawn.
    fn noise_init(&mut self, _stage: &NoiseInit, _tensors: &mut Handles) -> Result<()> {
        Ok(())
    }

    /// The sampler is about to ask the model.
    fn denoise_before(&mut self, _stage: &DenoiseBefore, _tensors: &mut Handles) -> Result<()> {
        Ok(())
    }

    /// The model is about to be asked. May answer in its place with samples `(rows, channels, height, width)`, for which it
    /// may ask `model` as often as it likes, of any rows; `None` if nobody's turn it is. The stages within the UNet are
    /// called by `model` through whoever it is given.
    fn denoise_wrap(&mut self, _stage: &DenoiseWrap, _model: &mut dyn Evaluate) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// What to add in the UNet, as ControlNets and T2I-Adapters make it; several at one place add up in their order.
    fn control_residuals(
        &mut self,
        _stage: &ControlResiduals,
        _tensors: &mut Handles,
    ) -> Result<Vec<Residual>> {
        Ok(vec![])
    }

    /// What rows of the pass look up otherwise: asked once per pass, and again when another model goes on.
    fn attention(&mut self, _stage: &AttentionStage) -> Result<Vec<Rule>> {
        Ok(vec![])
    }

    /// Whether [`Self::unet_block`] is called at a place in this evaluation, if it is wanted at all. What goes by at others
    /// is not copied.
    fn wants_site(&self, _evaluation: &Evaluation, _site: Site) -> bool {
        true
    }

    /// Something goes by in the UNet, once per place and group of rows; either tensor may be replaced by one of its shape.
    fn unet_block(&mut self, _stage: &UNetBlock, _tensors: &mut Handles) -> Result<()> {
        Ok(())
    }

    /// Predictions are there, and what guidance makes of them.
    fn denoise_combine(&mut self, _stage: &DenoiseCombine, _tensors: &mut Handles) -> Result<()> {
        Ok(())
    }

    /// A picture larger by the upscaler of this name, once over: by what it is made for. `told` is told after each part how many
    /// are done, of how many.
    fn upscale(
        &mut self,
        name: &str,
        _picture: &image::Picture,
        _told: &mut dyn FnMut(usize, usize),
    ) -> Result<image::Picture> {
        Err(Error::Stage(format!("nobody has the upscaler '{name}'")))
    }

    /// A picture with its faces restored.
    fn restore(
        &mut self,
        restoration: &FaceRestoration,
        _picture: &image::Picture,
    ) -> Result<image::Picture> {
        Err(Error::Stage(format!("nobody has the restorer '{}'", restoration.restorer)))
    }

    /// The sampler has ended.
    fn latent_final(&mut self, _stage: &LatentFinal, _tensors: &mut Handles) -> Result<()> {
        Ok(())
    }

    /// All pictures of a pass are decoded.
    fn image_post(&mut self, _stage: &mut ImagePost) -> Result<()> {
        Ok(())
    }
}

/// Takes part in nothing.
pub struct NoStages;

impl Stages for NoStages {}

//! The stages: a trait for each, and what it is given. Several plugins on one stage form a chain: each gets what the one before
//! left.

mod attention;
mod batch;
mod conditioning;
mod control;
mod infotext;
mod pass_begin;
mod rewrite;
mod tags;
mod wrap;

use crate::abi::{
    LATENTD_BASE, LATENTD_COND, LATENTD_HIRES, LATENTD_INPUT, LATENTD_INPUT_STORED, LATENTD_MIDDLE,
    LATENTD_OUTPUT, LATENTD_UNCOND, latentd_block, latentd_denoise, latentd_eval, latentd_latents,
    latentd_list, latentd_pass, latentd_picture, latentd_pictures, latentd_region, latentd_row,
};
use crate::call::Call;
use crate::error::Result;
use crate::handed_over::HandedOver;
use crate::host::{items, lent, text};
use crate::image::Image;
use crate::job::Plugin;
use crate::tensor::Tensor;
pub use attention::{Attention, Declaring, Where};
pub use batch::{Batch, BatchPost};
pub use conditioning::{Cond, Conditioning, Conds, Encoded, Token};
pub use control::{ControlResiduals, Controlling, Residual, ResidualAt};
pub use infotext::{InfotextParse, InfotextWrite, Reading, Writing};
pub use pass_begin::{Begun, Crop, PassBegin, Passing};
pub use rewrite::{Patch, PromptText, RequestRewrite, Rewrite};
pub use tags::{PromptTags, Tag, TagAnswer};
pub use wrap::{Ask, DenoiseWrap, Inside, Kept as BankKept, Wrap};

/// `noise.init`: initial noise of unit variance, before it is scaled.
pub trait NoiseInit: Plugin {
    /// May replace the noise.
    fn noise_init(&self, stage: &Latents<'_>) -> Result<()>;
}

/// `latent.final`: what the sampler ended with.
pub trait LatentFinal: Plugin {
    /// May replace the latents.
    fn latent_final(&self, stage: &Latents<'_>) -> Result<()>;
}

/// `denoise.before`: the sampler is about to ask the model.
pub trait DenoiseBefore: Plugin {
    /// May replace x.
    fn denoise_before(&self, stage: &Denoising<'_>) -> Result<()>;
}

/// `denoise.combine`: outputs are there, and what guidance makes of them.
pub trait DenoiseCombine: Plugin {
    /// May replace guided.
    fn denoise_combine(&self, stage: &Combine<'_>) -> Result<()>;
}

/// `unet.block`: what goes by at places in the UNet that the plan named.
pub trait UNetBlock: Plugin {
    /// May replace h, and the skip that joins it.
    fn unet_block(&self, stage: &Block<'_>) -> Result<()>;
}

/// `image.post`: all pictures of a pass as decoded, before they are laid over the user's.
pub trait ImagePost: Plugin {
    /// May replace each by one of the same size.
    fn image_post(&self, stage: &Pictures<'_>) -> Result<()>;
}

/// What a pass is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PassKind {
    /// The request's own.
    Base,
    /// The second one of a hires fix.
    Hires,
    /// One that this version does not know.
    Other,
}

impl PassKind {
    fn of(kind: u32) -> Self {
        match kind {
            LATENTD_BASE => Self::Base,
            LATENTD_HIRES => Self::Hires,
            _ => Self::Other,
        }
    }
}

/// A pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Pass {
    /// What it is for.
    pub kind: PassKind,
    /// Which of its kind, from 0.
    pub index: usize,
    /// Pixels in a row, and rows.
    pub size: (usize, usize),
    /// Its pictures: which of the job's, and the seed that draws it alone.
    pub pictures: Vec<(usize, u64)>,
    /// Its steps.
    pub steps: usize,
    /// As `size`, of the request's own pass.
    pub base: (usize, usize),
    /// As `size`, of the second one of a hires fix.
    pub hires: Option<(usize, usize)>,
    /// How far it goes from the pictures or latents that it begins with; `None` from noise alone.
    pub strength: Option<f64>,
}

/// What a row's prediction is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// What is wanted.
    Cond,
    /// What is steered away from.
    Uncond,
    /// Something else.
    Other,
}

/// One row of a batch. Rows come in any order: tell them by these fields.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    /// Which of the job's pictures.
    pub image: usize,
    /// Which branch of its guidance.
    pub branch: usize,
    /// What its prediction is taken for.
    pub role: Role,
    /// Of its picture.
    pub seed: u64,
    /// guided = uncond + scale · Σ weight · mask · (cond − uncond).
    pub weight: f64,
    /// Empty: the sampler's own; else whose and what.
    pub tag: &'a str,
    /// Where the branch counts, `(1, 1, height, width)` of latents, 0 to 1; everywhere if `None`.
    pub mask: Option<Tensor<'a>>,
    /// What the model is told, `(1, tokens, width)`; where a stage tells it.
    pub context: Option<Tensor<'a>>,
    /// The part of the picture that it shows.
    pub(crate) region: latentd_region,
}

/// The part of a canvas that a row shows, in pixels of the pass; a tile may hang over the canvas's borders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Region {
    /// Of its left upper corner, from the left and from the top.
    pub at: (i32, i32),
    /// Pixels in a row, and rows.
    pub size: (usize, usize),
    /// As `size`, of the whole.
    pub canvas: (usize, usize),
}

impl Row<'_> {
    /// The part of its picture that it shows.
    pub fn region(&self) -> Region {
        let latentd_region { x, y, w, h, canvas_w, canvas_h } = self.region;
        let size = |width: u32, height: u32| (width as usize, height as usize);
        Region { at: (x, y), size: size(w, h), canvas: size(canvas_w, canvas_h) }
    }
}

/// One evaluation of the model.
#[derive(Clone)]
pub struct Evaluation<'a> {
    /// What it is of.
    pub rows: Vec<Row<'a>>,
    /// What the pass is for.
    pub pass: PassKind,
    /// Which pass of its kind.
    pub pass_index: usize,
    /// Of this pass, from 0.
    pub step: usize,
    /// Of this pass.
    pub steps: usize,
    /// Evaluations before it in this pass.
    pub call: usize,
    /// What the network predicts, as the ABI's code; stages see samples.
    pub prediction: u32,
    /// The noise level: x = sample + sigma · noise.
    pub sigma: f64,
    /// Fractional.
    pub timestep: f64,
}

/// [`NoiseInit`] and [`LatentFinal`].
pub struct Latents<'a> {
    /// The call.
    pub call: Call<'a>,
    /// Whose they are.
    pub pass: Pass,
    /// `(pictures, channels, height, width)`, in the order of the pass's pictures.
    pub latents: Tensor<'a>,
}

impl<'a> Latents<'a> {
    /// Puts others in their place.
    pub fn replace(&self, new: impl Into<HandedOver<'a>>) -> Result<()> {
        hand_over(&self.call, 0, new)
    }
}

/// [`DenoiseBefore`].
pub struct Denoising<'a> {
    /// The call.
    pub call: Call<'a>,
    /// What it is of.
    pub evaluation: Evaluation<'a>,
    /// Which of the job's pictures the entries of `x` are, and their seeds.
    pub images: Vec<(usize, u64)>,
    /// `(images, channels, height, width)`: noisy latents.
    pub x: Tensor<'a>,
}

impl<'a> Denoising<'a> {
    /// Puts another x in its place.
    pub fn replace(&self, new: impl Into<HandedOver<'a>>) -> Result<()> {
        hand_over(&self.call, 0, new)
    }
}

/// [`DenoiseCombine`]. All tensors are in the model's own scale.
pub struct Combine<'a> {
    /// The call.
    pub call: Call<'a>,
    /// What it is of.
    pub evaluation: Evaluation<'a>,
    /// Which of the job's pictures the entries of `x` and `guided` are, and their seeds.
    pub images: Vec<(usize, u64)>,
    /// `(images, channels, height, width)`: noisy latents.
    pub x: Tensor<'a>,
    /// `(rows, channels, height, width)`: samples, in the order of the evaluation's rows.
    pub outputs: Tensor<'a>,
    /// `(images, channels, height, width)`: what guidance made of them.
    pub guided: Tensor<'a>,
    /// What it was made with.
    pub scale: f64,
}

impl<'a> Combine<'a> {
    /// Puts another sample in the place of what guidance made.
    pub fn replace(&self, new: impl Into<HandedOver<'a>>) -> Result<()> {
        hand_over(&self.call, 0, new)
    }
}

/// Where in a UNet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Part {
    /// After an input block, before its output is stored as skip.
    Input,
    /// After it was stored.
    InputStored,
    /// After the middle block.
    Middle,
    /// Before an output block.
    Output,
    /// One that this version does not know.
    Other,
}

/// [`UNetBlock`]. Tensors are f32 of the network's precision.
pub struct Block<'a> {
    /// The call.
    pub call: Call<'a>,
    /// What it is of: its rows are those that are here, in the order of the tensors.
    pub evaluation: Evaluation<'a>,
    /// Where.
    pub part: Part,
    /// Which block of that part.
    pub index: usize,
    /// `(rows, channels, height, width)`.
    pub h: Tensor<'a>,
    /// `(rows, channels, height, width)`, of outputs.
    pub skip: Option<Tensor<'a>>,
    /// Channels of h, and of the skip.
    pub channels: (usize, usize),
}

impl<'a> Block<'a> {
    /// Puts another h of the same sizes in its place.
    pub fn replace_h(&self, new: impl Into<HandedOver<'a>>) -> Result<()> {
        hand_over(&self.call, 0, new)
    }

    /// Puts another skip of the same sizes in its place.
    pub fn replace_skip(&self, new: impl Into<HandedOver<'a>>) -> Result<()> {
        hand_over(&self.call, 1, new)
    }
}

/// [`ImagePost`].
pub struct Pictures<'a> {
    /// The call.
    pub call: Call<'a>,
    /// Whose they are.
    pub pass: Pass,
    all: Vec<Picture<'a>>,
}

impl<'a> Pictures<'a> {
    /// All of the pass.
    pub fn pictures(&self) -> &[Picture<'a>] {
        &self.all
    }
}

/// A picture with what belongs to it.
pub struct Picture<'a> {
    /// Which of the job's.
    pub index: usize,
    /// What draws it alone.
    pub seed: u64,
    /// Its pixels.
    pub image: Image<'a>,
    slot: u32,
}

impl<'a> Picture<'a> {
    /// Puts another image in its place; in [`ImagePost`] of the same size and channels.
    pub fn replace(&self, new: impl Into<HandedOver<'a>>) -> Result<()> {
        hand_over(&self.image.call, self.slot, new)
    }
}

fn hand_over<'a>(call: &Call<'a>, slot: u32, new: impl Into<HandedOver<'a>>) -> Result<()> {
    call.replace(slot, new.into().into_handle(call)?)
}

/// As `lent` and `items` say of what it points to.
unsafe fn pass(given: *const latentd_pass) -> Result<Pass> {
    // SAFETY: as the caller says.
    let given = unsafe { lent(given) }?;
    // SAFETY: as the caller says.
    let pictures = unsafe { whose(given.pictures) }?;
    Ok(Pass {
        kind: PassKind::of(given.kind),
        index: given.index as usize,
        size: (given.width as usize, given.height as usize),
        pictures,
        steps: given.steps as usize,
        base: (given.base_w as usize, given.base_h as usize),
        hires: (given.hires_w > 0).then_some((given.hires_w as usize, given.hires_h as usize)),
        strength: (given.has_init != 0).then_some(given.denoising_strength),
    })
}

/// As `items` says.
unsafe fn whose(list: latentd_list) -> Result<Vec<(usize, u64)>> {
    // SAFETY: as the caller says.
    let pictures = unsafe { items::<latentd_picture>(list) }?;
    Ok(pictures.into_iter().map(|picture| (picture.image as usize, picture.seed)).collect())
}

/// As `lent` and `items` say of what it points to.
unsafe fn evaluation(call: Call<'_>, given: *const latentd_eval) -> Result<Evaluation<'_>> {
    // SAFETY: as the caller says.
    let given = unsafe { lent(given) }?;
    // SAFETY: as the caller says.
    let rows = unsafe { items::<latentd_row>(given.rows) }?;
    let row = |row: latentd_row| Row {
        image: row.image as usize,
        branch: row.branch as usize,
        role: match row.role {
            LATENTD_COND => Role::Cond,
            LATENTD_UNCOND => Role::Uncond,
            _ => Role::Other,
        },
        seed: row.seed,
        weight: row.weight,
        // SAFETY: lent until the call ends.
        tag: unsafe { text(row.tag) },
        mask: (row.mask != 0).then_some(Tensor { call, handle: row.mask }),
        context: (row.context != 0).then_some(Tensor { call, handle: row.context }),
        region: row.region,
    };
    Ok(Evaluation {
        rows: rows.into_iter().map(row).collect(),
        pass: PassKind::of(given.pass_kind),
        pass_index: given.pass as usize,
        step: given.step as usize,
        steps: given.steps as usize,
        call: given.call as usize,
        prediction: given.prediction,
        sigma: given.sigma,
        timestep: given.timestep,
    })
}

impl<'a> Latents<'a> {
    /// # Safety
    /// As the ABI says of the stage's argument.
    pub(crate) unsafe fn of(call: Call<'a>, given: *const latentd_latents) -> Result<Self> {
        // SAFETY: as the caller says.
        let given = unsafe { lent(given) }?;
        // SAFETY: as the caller says.
        let pass = unsafe { pass(given.pass) }?;
        Ok(Self { call, pass, latents: Tensor { call, handle: given.latents } })
    }
}

impl<'a> Denoising<'a> {
    /// # Safety
    /// As the ABI says of the stage's argument.
    pub(crate) unsafe fn of(call: Call<'a>, given: *const latentd_denoise) -> Result<Self> {
        // SAFETY: as the caller says.
        let given = unsafe { lent(given) }?;
        // SAFETY: as the caller says.
        let (evaluation, images) = unsafe { (evaluation(call, given.eval)?, whose(given.images)?) };
        Ok(Self { call, evaluation, images, x: Tensor { call, handle: given.x } })
    }
}

impl<'a> Combine<'a> {
    /// # Safety
    /// As the ABI says of the stage's argument.
    pub(crate) unsafe fn of(call: Call<'a>, given: *const latentd_denoise) -> Result<Self> {
        // SAFETY: as the caller says.
        let given = unsafe { lent(given) }?;
        // SAFETY: as the caller says.
        let (evaluation, images) = unsafe { (evaluation(call, given.eval)?, whose(given.images)?) };
        let tensor = |handle| Tensor { call, handle };
        let (x, outputs, guided) = (tensor(given.x), tensor(given.outputs), tensor(given.guided));
        Ok(Self { call, evaluation, images, x, outputs, guided, scale: given.cfg_scale })
    }
}

impl<'a> Block<'a> {
    /// # Safety
    /// As the ABI says of the stage's argument.
    pub(crate) unsafe fn of(call: Call<'a>, given: *const latentd_block) -> Result<Self> {
        // SAFETY: as the caller says.
        let given = unsafe { lent(given) }?;
        // SAFETY: as the caller says.
        let evaluation = unsafe { evaluation(call, given.eval) }?;
        let part = match given.part {
            LATENTD_INPUT => Part::Input,
            LATENTD_INPUT_STORED => Part::InputStored,
            LATENTD_MIDDLE => Part::Middle,
            LATENTD_OUTPUT => Part::Output,
            _ => Part::Other,
        };
        let h = Tensor { call, handle: given.h };
        let skip = (given.skip != 0).then_some(Tensor { call, handle: given.skip });
        let channels = (given.channels as usize, given.skip_channels as usize);
        Ok(Self { call, evaluation, part, index: given.index as usize, h, skip, channels })
    }
}

impl<'a> Pictures<'a> {
    /// # Safety
    /// As the ABI says of the stage's argument.
    pub(crate) unsafe fn of(call: Call<'a>, given: *const latentd_pictures) -> Result<Self> {
        // SAFETY: as the caller says.
        let given = unsafe { lent(given) }?;
        // SAFETY: as the caller says.
        let (pass, all) = unsafe { (pass(given.pass)?, pictures(call, given.pictures)?) };
        Ok(Self { call, pass, all })
    }
}

/// As `items` says.
unsafe fn pictures(call: Call<'_>, list: latentd_list) -> Result<Vec<Picture<'_>>> {
    // SAFETY: as the caller says.
    let pictures = unsafe { items::<latentd_picture>(list) }?;
    let picture = |(slot, picture): (usize, latentd_picture)| {
        let image = Image::of(call, picture.pixels)?;
        Ok(Picture { index: picture.image as usize, seed: picture.seed, image, slot: slot as u32 })
    };
    pictures.into_iter().enumerate().map(picture).collect()
}

//! `denoise.wrap`: around the model, one sample per row.

use super::{Evaluation, Part, Role, Row, evaluation, hand_over, items, lent};
use crate::abi::{
    LATENTD_BARE, LATENTD_COND, LATENTD_INPUT, LATENTD_MIDDLE, LATENTD_NEXT, LATENTD_OTHER, LATENTD_OUTPUT,
    LATENTD_SELF, LATENTD_UNCOND, LATENTD_UNWRAPPED, latentd_denoise, latentd_eval_args, latentd_kept,
    latentd_list, latentd_region, latentd_row,
};
use crate::call::{Call, lacks};
use crate::error::{Error, Result};
use crate::handed_over::HandedOver;
use crate::host::lend;
use crate::job::Plugin;
use crate::tensor::Tensor;

/// `denoise.wrap`: the model is about to be asked.
pub trait DenoiseWrap: Plugin {
    /// May answer in its place. While it asks, other functions of the plugin may be called on this thread.
    fn denoise_wrap(&self, stage: &Wrap<'_>) -> Result<()>;
}

/// [`DenoiseWrap`].
pub struct Wrap<'a> {
    /// The call.
    pub call: Call<'a>,
    /// What it is of.
    pub evaluation: Evaluation<'a>,
    /// `(rows, channels, height, width)`: noisy latents, in the order of the evaluation's rows.
    pub x: Tensor<'a>,
}

/// Whom a plugin asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Inside {
    /// Whoever lies inside of it.
    #[default]
    Next,
    /// The model with the stages within it.
    Unwrapped,
    /// The model alone: no plugin takes part.
    Bare,
}

/// What a rule of attention kept.
#[derive(Clone, Copy)]
pub struct Kept<'a> {
    /// Whether of a picture's places to each other.
    pub is_self: bool,
    /// In which part.
    pub part: Part,
    /// Which block of it.
    pub index: usize,
    /// Which transformer layer of that.
    pub layer: usize,
    /// Of which of the job's pictures.
    pub image: usize,
    /// `(1, tokens, channels)` of what was captured; `(1, keys)` of what was received.
    pub tensor: Tensor<'a>,
}

/// One row that the model is asked of.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// A row of the stage; what is not said otherwise is as of it.
    pub row: &'a Row<'a>,
    /// Whose and what, "NAME/what"; empty: as the sampler's own.
    pub tag: &'a str,
    /// What the model is told instead, `(1, tokens, width)`.
    pub context: Option<Tensor<'a>>,
    /// The part of the picture that it shows: x, y, width, height, in pixels.
    pub part: Option<(i32, i32, u32, u32)>,
}

impl<'a> Ask<'a> {
    /// A row as it is, with a tag.
    pub fn of(row: &'a Row<'a>, tag: &'a str) -> Self {
        Self { row, tag, context: None, part: None }
    }

    fn told(&self) -> latentd_row {
        let region = self.row.region;
        let region = self.part.map_or(region, |(x, y, w, h)| latentd_region { x, y, w, h, ..region });
        latentd_row {
            image: self.row.image as u32,
            branch: self.row.branch as u32,
            role: match self.row.role {
                Role::Cond => LATENTD_COND,
                Role::Uncond => LATENTD_UNCOND,
                Role::Other => LATENTD_OTHER,
            },
            reserved: 0,
            seed: self.row.seed,
            weight: self.row.weight,
            tag: lend(self.tag),
            region,
            mask: 0,
            context: self.context.or(self.row.context).map_or(0, |context| context.handle),
            pooled: 0,
        }
    }
}

impl<'a> Wrap<'a> {
    /// Samples `(rows, channels, height, width)` of x, one row of `asked` each, at a noise level or that of the stage.
    ///
    /// # Errors
    /// What fails inside ends the job, whatever the plugin makes of it.
    pub fn ask(
        &self,
        inside: Inside,
        asked: &[Ask<'_>],
        x: Tensor<'_>,
        sigma: Option<f64>,
    ) -> Result<Tensor<'a>> {
        let eval = self.call.host.evals.and_then(|evals| evals.eval).ok_or_else(lacks)?;
        let rows: Vec<latentd_row> = asked.iter().map(Ask::told).collect();
        let rows = latentd_list {
            items: rows.as_ptr().cast(),
            count: rows.len() as u32,
            stride: size_of::<latentd_row>() as u32,
        };
        let args = latentd_eval_args {
            size: size_of::<latentd_eval_args>() as u32,
            inside: match inside {
                Inside::Next => LATENTD_NEXT,
                Inside::Unwrapped => LATENTD_UNWRAPPED,
                Inside::Bare => LATENTD_BARE,
            },
            x: x.handle,
            sigma: sigma.unwrap_or_default(),
            rows,
        };
        let mut outputs = 0;
        // SAFETY: the call is under way; what is lent lives until it returns.
        Error::of_service(unsafe { eval(self.call.pointer, &raw const args, &raw mut outputs) })?;
        Ok(Tensor { call: self.call, handle: outputs })
    }

    /// All that a bank of the plugin's rules of attention has.
    ///
    /// # Errors
    /// If no rule of this pass names it.
    pub fn bank(&self, name: &str) -> Result<Vec<Kept<'a>>> {
        let bank = self.call.host.evals.and_then(|evals| evals.bank).ok_or_else(lacks)?;
        let mut kept = latentd_list { items: std::ptr::null(), count: 0, stride: 0 };
        // SAFETY: the call is under way; the text is lent, and the list is ours.
        Error::of_service(unsafe { bank(self.call.pointer, lend(name), &raw mut kept) })?;
        // SAFETY: the host lends it until the call ends.
        let kept = unsafe { items::<latentd_kept>(kept) }?;
        let one = |kept: latentd_kept| Kept {
            is_self: kept.which == LATENTD_SELF,
            part: match kept.part {
                LATENTD_INPUT => Part::Input,
                LATENTD_MIDDLE => Part::Middle,
                LATENTD_OUTPUT => Part::Output,
                _ => Part::Other,
            },
            index: kept.index as usize,
            layer: kept.layer as usize,
            image: kept.image as usize,
            tensor: Tensor { call: self.call, handle: kept.tensor },
        };
        Ok(kept.into_iter().map(one).collect())
    }

    /// Answers with these samples, one per row.
    pub fn replace(&self, new: impl Into<HandedOver<'a>>) -> Result<()> {
        hand_over(&self.call, 0, new)
    }

    /// # Safety
    /// As the ABI says of the stage's argument.
    pub(crate) unsafe fn of(call: Call<'a>, given: *const latentd_denoise) -> Result<Self> {
        // SAFETY: as the caller says.
        let given = unsafe { lent(given) }?;
        // SAFETY: as the caller says.
        let evaluation = unsafe { evaluation(call, given.eval) }?;
        Ok(Self { call, evaluation, x: Tensor { call, handle: given.x } })
    }
}

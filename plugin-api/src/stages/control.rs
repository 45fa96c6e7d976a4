//! `control.residuals`: what is added within the UNet.

use super::{Evaluation, evaluation, lent};
use crate::abi::{LATENTD_AT_ENCODER, LATENTD_AT_MIDDLE, LATENTD_AT_SKIP, latentd_control, latentd_residual};
use crate::call::{Call, lacks};
use crate::error::{Error, Result};
use crate::job::Plugin;
use crate::mask::Mask;
use crate::tensor::Tensor;

/// `control.residuals`: the UNet is about to be asked, of all rows of an evaluation.
pub trait ControlResiduals: Plugin {
    /// May add something within it.
    fn control_residuals(&self, stage: &Controlling<'_>) -> Result<()>;
}

/// [`ControlResiduals`].
pub struct Controlling<'a> {
    /// The call.
    pub call: Call<'a>,
    /// What it is of, whoever asked for it.
    pub evaluation: Evaluation<'a>,
    /// `(rows, channels, height, width)` as the UNet takes it: x / √(sigma² + 1).
    pub x: Tensor<'a>,
    table: latentd_control,
}

/// Where something is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResidualAt {
    /// To the output of this input block before it is stored as a skip, as a T2I-Adapter does.
    Encoder(usize),
    /// To this skip, in the order in which they are stored, as a ControlNet does.
    Skip(usize),
    /// To the output of the middle block.
    Middle,
}

/// Something that is added; several at one place add up.
#[derive(Clone, Copy)]
pub struct Residual<'a> {
    /// Where.
    pub at: ResidualAt,
    /// `(rows, channels, height, width)` of the place's size, or `(1, …)` for all of the rows.
    pub tensor: Tensor<'a>,
    /// Which rows of the evaluation it is for, each once; all if `None`.
    pub rows: Option<&'a [u32]>,
    /// How much of it counts where.
    pub mask: Option<Mask<'a>>,
    /// What it is multiplied by; of 0 nothing is added.
    pub scale: f64,
}

impl<'a> Controlling<'a> {
    /// Adds something in this evaluation.
    ///
    /// # Errors
    /// If there is no such place or row, or it has another size or numbers that are none.
    pub fn add(&self, residual: &Residual<'_>) -> Result<()> {
        let (at, index) = match residual.at {
            ResidualAt::Encoder(index) => (LATENTD_AT_ENCODER, index),
            ResidualAt::Skip(index) => (LATENTD_AT_SKIP, index),
            ResidualAt::Middle => (LATENTD_AT_MIDDLE, 0),
        };
        let rows = residual.rows;
        if rows.is_some_and(<[u32]>::is_empty) {
            // Of no row; to the ABI none are named.
            return Ok(());
        }
        let told = latentd_residual {
            size: size_of::<latentd_residual>() as u32,
            at,
            index: u32::try_from(index).unwrap_or(u32::MAX),
            row_count: rows.map_or(0, |rows| rows.len() as u32),
            rows: rows.map_or(std::ptr::null(), <[u32]>::as_ptr),
            tensor: residual.tensor.handle,
            mask: Mask::handle(residual.mask),
            scale: residual.scale,
        };
        let add = self.table.add.ok_or_else(lacks)?;
        // SAFETY: the call is under way; the struct and what it points to are lent.
        Error::of_service(unsafe { add(self.call.pointer, &raw const told) })
    }

    /// # Safety
    /// As the ABI says of the stage's argument.
    pub(crate) unsafe fn of(call: Call<'a>, given: *const latentd_control) -> Result<Self> {
        // SAFETY: as the caller says.
        let table = unsafe { lent(given) }?;
        // SAFETY: as the caller says.
        let evaluation = unsafe { evaluation(call, table.eval) }?;
        Ok(Self { call, evaluation, x: Tensor { call, handle: table.x }, table })
    }
}

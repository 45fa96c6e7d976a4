//! Activation functions that follow no product.

use candle_core::Result;
use latentd_kernels::{Buffer, Isa};

use super::Activations;
use super::activations::Values;

/// `x · sigmoid(x)` of f32 activations.
pub fn silu(x: &Activations) -> Result<Activations> {
    let mut out = Buffer::new(x.f32()?.len());
    out.copy_from_slice(x.f32()?);
    latentd_kernels::silu(Isa::current(), &mut out);
    Ok(Activations::new(Values::F32(out), x.dims()))
}

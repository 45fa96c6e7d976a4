//! Activation functions that follow no product.

use candle_core::{Result, bail};
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

/// `(…, 2 · width) → (…, width)` of f32 activations: the first half times the exact (erf) GELU of the second.
pub fn geglu(x: &Activations) -> Result<Activations> {
    let width = x.channels() / 2;
    if width == 0 || x.channels() != width * 2 {
        bail!("geglu: input {:?} does not split in halves", x.dims());
    }
    let mut out = Buffer::new(x.rows() * width);
    latentd_kernels::geglu(Isa::current(), x.f32()?, width, &mut out);
    let mut dims = x.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = width;
    }
    Ok(Activations::new(Values::F32(out), dims))
}

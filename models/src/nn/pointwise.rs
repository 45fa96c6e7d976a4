//! Activations, sums, and resizing without weights.

use candle_core::{D, Result, Tensor, bail};
use latentd_kernels::Isa;

use super::op;

/// `x · sigmoid(x)`.
pub fn silu(x: &Tensor) -> Result<Tensor> {
    op::unary("silu", x, x.shape(), |x, out| {
        out.copy_from_slice(x);
        latentd_kernels::silu(Isa::current(), out);
    })
}

/// `x · sigmoid(1.702 x)`, the activation of OpenAI's CLIP.
pub fn quick_gelu(x: &Tensor) -> Result<Tensor> {
    op::unary("quick gelu", x, x.shape(), |x, out| {
        out.copy_from_slice(x);
        latentd_kernels::quick_gelu(Isa::current(), out);
    })
}

/// `(…, 2 · width) → (…, width)`: the first half times the exact (erf) GELU of the second.
pub fn geglu(x: &Tensor) -> Result<Tensor> {
    let width = x.dim(D::Minus1)? / 2;
    if width == 0 || x.dim(D::Minus1)? != width * 2 {
        bail!("geglu: input {:?} does not split in halves", x.shape());
    }
    let mut shape = x.dims().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = width;
    }
    op::unary("geglu", x, shape, |x, out| {
        latentd_kernels::geglu(Isa::current(), x, width, out);
    })
}

/// `x (batch, height, width, channels)` plus `bias (batch, channels)` at every pixel.
pub fn add_per_channel(x: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let (batch, _, _, channels) = x.dims4()?;
    if bias.dims2()? != (batch, channels) {
        bail!("add: bias {:?} for {:?}", bias.shape(), x.shape());
    }
    let bias = bias.flatten_all()?.to_vec1::<f32>()?;
    op::unary("add per channel", x, x.shape(), |x, out| {
        out.copy_from_slice(x);
        latentd_kernels::add_per_channel(out, &bias, batch, channels);
    })
}

/// `x (batch, height, width, channels)` → `(batch, rows, columns, channels)`, nearest neighbour, torch's rounding.
/// A tensor of that size already is returned as it is.
pub fn resize_nearest(x: &Tensor, rows: usize, columns: usize) -> Result<Tensor> {
    let (batch, height, width, channels) = x.dims4()?;
    if (height, width) == (rows, columns) {
        return Ok(x.clone());
    }
    let source = |to: usize, from_size: usize, to_size: usize| {
        ((to as f32 * (from_size as f32 / to_size as f32)) as usize).min(from_size.saturating_sub(1))
    };
    op::unary("resize", x, (batch, rows, columns, channels), |x, out| {
        for (index, pixel) in out.chunks_exact_mut(channels.max(1)).enumerate() {
            let (image, rest) = (index / (rows * columns), index % (rows * columns));
            let y = source(rest / columns, height, rows);
            let from = ((image * height + y) * width + source(rest % columns, width, columns)) * channels;
            pixel.copy_from_slice(&x[from..from + channels]);
        }
    })
}

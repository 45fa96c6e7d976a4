//! Functions of each number, computed in f32.

use half::bf16;
use latentd_kernels::Isa;
use rayon::prelude::*;

use super::memory::Memory;
use super::pointwise::convert;
use super::values::{CHUNK, Values, map};
use crate::error::Result;
use crate::nn::backend::{Activations, Pointwise};

/// `function` of each number of `x`, in the precision of `x`.
pub(super) fn apply(
    memory: &impl Memory,
    isa: Isa,
    x: &Activations,
    function: Pointwise,
) -> Result<Activations> {
    let mut out = memory.buffer(x.count())?;
    match x.storage()? {
        Values::F32(values) => out.copy_from_slice(values),
        Values::Bf16(values) => map(values, &mut out, bf16::to_f32),
    }
    in_place(isa, &mut out, function);
    convert(memory, &Values::F32(out).with_dims(x.dims()), x.precision())
}

/// Scales of SELU (Klambauer et al. 2017): of all, and of what is below zero.
const SELU: (f32, f32) = (1.050_701, 1.673_263_2);

fn in_place(isa: Isa, values: &mut [f32], function: Pointwise) {
    match function {
        Pointwise::Relu => each(values, |x| x.max(0.0)),
        Pointwise::Relu6 => each(values, |x| x.clamp(0.0, 6.0)),
        Pointwise::LeakyRelu => each(values, |x| if x < 0.0 { 0.01 * x } else { x }),
        Pointwise::RandomRelu => each(values, |x| if x < 0.0 { 11.0 / 48.0 * x } else { x }),
        Pointwise::Elu => each(values, elu),
        Pointwise::Selu => each(values, |x| SELU.0 * if x < 0.0 { SELU.1 * elu(x) } else { x }),
        Pointwise::Gelu => latentd_kernels::gelu(isa, values),
        Pointwise::Silu => latentd_kernels::silu(isa, values),
        Pointwise::Mish => each(values, |x| x * softplus(x).tanh()),
        Pointwise::Softplus => each(values, softplus),
        Pointwise::Softsign => each(values, |x| x / (1.0 + x.abs())),
        Pointwise::Sigmoid => each(values, |x| 1.0 / (1.0 + (-x).exp())),
        Pointwise::LogSigmoid => each(values, |x| x.min(0.0) - (-x.abs()).exp().ln_1p()),
        Pointwise::Tanh => each(values, f32::tanh),
        Pointwise::Tanhshrink => each(values, |x| x - x.tanh()),
        Pointwise::Hardtanh => each(values, |x| x.clamp(-1.0, 1.0)),
        Pointwise::Hardsigmoid => each(values, hardsigmoid),
        Pointwise::Hardswish => each(values, |x| x * hardsigmoid(x)),
        Pointwise::Hardshrink => each(values, |x| if x.abs() <= 0.5 { 0.0 } else { x }),
        Pointwise::Softshrink => {
            each(values, |x| if x.abs() <= 0.5 { 0.0 } else { x - 0.5f32.copysign(x) });
        }
    }
}

fn each(values: &mut [f32], f: impl Fn(f32) -> f32 + Sync) {
    values.par_chunks_mut(CHUNK).for_each(|chunk| {
        for value in chunk {
            *value = f(*value);
        }
    });
}

fn elu(x: f32) -> f32 {
    if x < 0.0 { x.exp_m1() } else { x }
}

/// Above 20 eˣ is all there is, as in torch.
fn softplus(x: f32) -> f32 {
    if x > 20.0 { x } else { x.exp().ln_1p() }
}

fn hardsigmoid(x: f32) -> f32 {
    (x + 3.0).clamp(0.0, 6.0) / 6.0
}

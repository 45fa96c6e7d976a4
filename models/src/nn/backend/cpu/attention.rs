//! Scaled dot-product attention over packed keys and values.

use latentd_kernels::tiled::{self, attention_packed};
use latentd_kernels::{Isa, PackedKeys};

use super::memory::Memory;
use super::values::{self, Values};
use crate::error::{Result, bail};
use crate::nn::backend::{Activations, Keys};

enum Packed {
    F32(PackedKeys),
    Bf16(tiled::PackedKeys),
}

pub(super) fn keys(memory: &impl Memory, k: &Activations, v: &Activations, heads: usize) -> Result<Keys> {
    let (batch, count, channels) = k.dims3()?;
    let head_dim = channels / heads.max(1);
    let packed = match k.storage()? {
        Values::F32(k) => {
            Packed::F32(memory.settle(PackedKeys::new(k, values::f32(v)?, batch, heads, head_dim, count))?)
        }
        Values::Bf16(k) => {
            let packed = tiled::PackedKeys::new(k, values::bf16(v)?, batch, heads, head_dim, count);
            Packed::Bf16(memory.settle(packed)?)
        }
    };
    Ok(Keys::new(packed, batch, count, channels, heads))
}

pub(super) fn attention(
    isa: Isa,
    q: &Activations,
    keys: &[&Keys],
    causal: bool,
    out: &mut Values,
) -> Result<()> {
    let (_, queries, channels) = q.dims3()?;
    let mut first = 0;
    for keys in keys {
        let range = first * queries * channels..(first + keys.batch) * queries * channels;
        first += keys.batch;
        match (keys.packed()?, &mut *out) {
            (Packed::F32(packed), Values::F32(out)) => {
                let q = &values::f32(q)?[range.clone()];
                latentd_kernels::attention_packed(isa, q, packed, causal, &mut out[range]);
            }
            (Packed::Bf16(packed), Values::Bf16(out)) => {
                attention_packed(isa, &values::bf16(q)?[range.clone()], packed, causal, &mut out[range]);
            }
            _ => bail!("attention: queries and keys of different precision"),
        }
    }
    Ok(())
}

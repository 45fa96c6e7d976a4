//! Scaled dot-product attention.

use candle_core::{Result, bail};
use latentd_kernels::Isa;
use latentd_kernels::tiled::{PackedKeys, attention_packed};

use super::Activations;
use super::activations::Values;

/// Keys and values, which many queries can look up.
pub struct Keys {
    batch: usize,
    count: usize,
    channels: usize,
    kind: Kind,
}

enum Kind {
    F32(latentd_kernels::PackedKeys),
    Bf16(PackedKeys),
}

impl Keys {
    /// `k` and `v` are `(batch, keys, channels)`; `channels` is a multiple of `heads`.
    pub fn new(k: &Activations, v: &Activations, heads: usize) -> Result<Self> {
        let (batch, count, channels) = k.dims3()?;
        if v.dims() != k.dims() || heads == 0 || !channels.is_multiple_of(heads) || count == 0 {
            bail!("attention: keys {:?}, values {:?} with {heads} heads", k.dims(), v.dims());
        }
        let kind = match k.values() {
            Values::F32(k) => {
                let v = v.f32()?;
                Kind::F32(latentd_kernels::PackedKeys::new(k, v, batch, heads, channels / heads, count))
            }
            Values::Bf16(k) => {
                Kind::Bf16(PackedKeys::new(k, v.bf16()?, batch, heads, channels / heads, count))
            }
        };
        Ok(Self { batch, count, channels, kind })
    }
}

/// softmax(q kᵀ / √head_dim) v for each head: `q (batch, queries, channels)` → the same shape. With `causal`, query
/// `i` sees keys up to `i`. The matrix of scores never exists as a whole.
pub fn attention(q: &Activations, keys: &Keys, causal: bool) -> Result<Activations> {
    attention_of_each(q, &[keys], causal)
}

/// As [`attention`], where the batch is that of all `keys` one after the other. They may differ in length.
pub fn attention_of_each(q: &Activations, keys: &[&Keys], causal: bool) -> Result<Activations> {
    let (batch, queries, channels) = q.dims3()?;
    let fits = keys.iter().all(|keys| keys.channels == channels)
        && keys.iter().map(|keys| keys.batch).sum::<usize>() == batch;
    if !fits {
        let lengths: Vec<_> = keys.iter().map(|keys| (keys.batch, keys.count, keys.channels)).collect();
        bail!("attention: queries {:?} for keys {lengths:?}", q.dims());
    }
    let mut out = Values::new(q.precision(), batch * queries * channels);
    let mut first = 0;
    for keys in keys {
        let range = first * queries * channels..(first + keys.batch) * queries * channels;
        first += keys.batch;
        match (&keys.kind, &mut out) {
            (Kind::F32(packed), Values::F32(out)) => {
                let q = &q.f32()?[range.clone()];
                latentd_kernels::attention_packed(Isa::current(), q, packed, causal, &mut out[range]);
            }
            (Kind::Bf16(packed), Values::Bf16(out)) => {
                attention_packed(Isa::current(), &q.bf16()?[range.clone()], packed, causal, &mut out[range]);
            }
            _ => bail!("attention: queries and keys of different precision"),
        }
    }
    Ok(Activations::new(out, q.dims()))
}

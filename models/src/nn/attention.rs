//! Scaled dot-product attention.

use candle_core::{Result, Tensor, bail};
use latentd_kernels::{AttentionShape, Isa};

use super::op;

/// softmax(q kᵀ / √head_dim) v for each head. `q` `(batch, queries, channels)`, `k` and `v`
/// `(batch, keys, channels)` → `(batch, queries, channels)`; `channels` is a multiple of `heads`. With `causal`,
/// query `i` sees keys up to `i`. The matrix of scores never exists as a whole.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, causal: bool) -> Result<Tensor> {
    let (batch, queries, channels) = q.dims3()?;
    let (_, keys, _) = k.dims3()?;
    let fits = k.dims3()? == (batch, keys, channels) && v.dims3()? == (batch, keys, channels);
    if !fits || heads == 0 || !channels.is_multiple_of(heads) || keys == 0 {
        bail!("attention: q {:?}, k {:?}, v {:?} with {heads} heads", q.shape(), k.shape(), v.shape());
    }
    let shape = AttentionShape { batch, heads, head_dim: channels / heads, queries, keys, causal };
    op::ternary("attention", [q, k, v], q.shape(), |q, k, v, out| {
        latentd_kernels::attention(Isa::current(), q, k, v, shape, out);
    })
}

//! Scaled dot-product attention, over one set of keys and values or several.

use super::backend::{Activations, Device, Keys};
use crate::error::{Result, bail};

/// Keys and values beside the model's own, with a softmax of their own: what the queries find there is added, times a
/// weight and a mask.
#[derive(Clone, Copy)]
pub struct KeySet<'a> {
    /// Of one row's batch.
    pub keys: &'a Keys,
    /// What it counts.
    pub weight: f32,
    /// What it counts at each query, `queries` numbers, the same for all of a row's batch; 1 everywhere if `None`.
    pub mask: Option<&'a [f32]>,
}

/// What one row of a batch, or several that are alike, look up in one block.
pub struct RowKeys<'a> {
    /// The model's own keys and values: the first set.
    pub own: KeySet<'a>,
    /// What is found there, if that is known already.
    pub found: Option<&'a Activations>,
    /// Further sets.
    pub sets: Vec<KeySet<'a>>,
}

impl<'a> RowKeys<'a> {
    /// The model's own alone.
    pub fn own(keys: &'a Keys) -> Self {
        Self { own: KeySet { keys, weight: 1.0, mask: None }, found: None, sets: vec![] }
    }

    fn is_plain(&self) -> bool {
        self.found.is_none()
            && self.sets.is_empty()
            && self.own.mask.is_none()
            && self.own.weight.to_bits() == 1f32.to_bits()
    }
}

/// What a row finds its own answers in, where they are not as the network says.
pub enum Own {
    /// These keys and values.
    Keys(Keys),
    /// This is what it finds.
    Found(Activations),
}

/// Packs keys and values: `k` and `v` are `(batch, keys, channels)`; `channels` is a multiple of `heads`.
pub fn keys(device: &Device, k: &Activations, v: &Activations, heads: usize) -> Result<Keys> {
    let (_, count, channels) = k.dims3()?;
    if v.dims() != k.dims() || heads == 0 || !channels.is_multiple_of(heads) || count == 0 {
        bail!("attention: keys {:?}, values {:?} with {heads} heads", k.dims(), v.dims());
    }
    if v.precision() != k.precision() {
        bail!("attention: keys and values of different precision");
    }
    device.keys(k, v, heads)
}

/// softmax(q kᵀ / √head_dim) v for each head: `q (batch, queries, channels)` → the same shape. With `causal`, query
/// `i` sees keys up to `i`. The matrix of scores never exists as a whole.
pub fn attention(device: &Device, q: &Activations, keys: &Keys, causal: bool) -> Result<Activations> {
    check(q, &[keys])?;
    device.attention(q, &[keys], causal)
}

/// As [`attention`], where the batch is that of all `rows` one after the other. Their keys may differ in number, and
/// what each finds in several sets is added up.
pub fn attention_of_rows(device: &Device, q: &Activations, rows: &[RowKeys]) -> Result<Activations> {
    let own: Vec<&Keys> = rows.iter().map(|row| row.own.keys).collect();
    check(q, &own)?;
    let is_known = rows.iter().any(|row| row.found.is_some());
    let found = if is_known { None } else { Some(device.attention(q, &own, false)?) };
    if let Some(found) = &found
        && rows.iter().all(RowKeys::is_plain)
    {
        return Ok(found.clone());
    }
    let mut parts = vec![];
    let mut start = 0;
    for row in rows {
        let count = row.own.keys.batch;
        let mut sum = match (row.found, &found) {
            (Some(known), _) => known.clone(),
            (None, Some(found)) => device.part(found, start, count)?,
            (None, None) => device.attention(&device.part(q, start, count)?, &[row.own.keys], false)?,
        };
        if !row.is_plain() {
            let q = device.part(q, start, count)?;
            let queries = q.dims3()?.1;
            let masks = row.sets.iter().chain([&row.own]).filter_map(|set| set.mask);
            if let Some(mask) = masks.into_iter().find(|mask| mask.len() != queries) {
                bail!("attention: a mask of {} numbers for {queries} queries", mask.len());
            }
            sum = device.blend((&sum, row.own.weight, row.own.mask), None)?;
            for set in &row.sets {
                check(&q, &[set.keys])?;
                let found = device.attention(&q, &[set.keys], false)?;
                sum = device.blend((&sum, 1.0, None), Some((&found, set.weight, set.mask)))?;
            }
        }
        parts.push(sum);
        start += count;
    }
    device.stack(&parts.iter().collect::<Vec<_>>())
}

fn check(q: &Activations, keys: &[&Keys]) -> Result<()> {
    let (batch, _, channels) = q.dims3()?;
    let fits = keys.iter().all(|keys| keys.channels == channels)
        && keys.iter().map(|keys| keys.batch).sum::<usize>() == batch;
    if !fits {
        let lengths: Vec<_> = keys.iter().map(|keys| (keys.batch, keys.count, keys.channels)).collect();
        bail!("attention: queries {:?} for keys {lengths:?}", q.dims());
    }
    Ok(())
}

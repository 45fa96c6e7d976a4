//! What a row finds in its network's own keys, where something is appended to them, added to their scores, or kept of them.

use std::sync::Arc;

use super::attention_bank::BankPlace;
use super::unet_call::{AppendedKeys, AttentionChange};
use crate::Error;
use crate::error::{Result, bail};
use crate::nn::{
    Activations, Device, KeyValueTransform, Linear, Own, Precision, attention_with_bias, behind, keys,
    received, upload,
};
use crate::tensor::Tensor;

/// Keys and values, each `(1, tokens, channels)`.
pub(super) type Projected = (Activations, Activations);

/// What makes keys and values of an attention.
#[derive(Clone, Copy)]
pub(super) struct Projections<'a> {
    pub device: &'a Device,
    pub key: &'a Linear,
    pub value: &'a Linear,
    pub heads: usize,
    pub transforms: &'a [Arc<dyn KeyValueTransform>],
    pub place: BankPlace,
}

/// Keeps what keys and values are made of where somebody wants it: `source (1, tokens, channels)`.
pub(super) fn capture(
    device: &Device,
    place: BankPlace,
    changes: &[&AttentionChange],
    source: impl Fn() -> Result<Activations>,
) -> Result<()> {
    for change in changes {
        if let AttentionChange::Capture { bank, picture } = change {
            let source = source()?;
            bank.keep(place, *picture, Tensor::new(device.download(&source)?, source.dims())?);
        }
    }
    Ok(())
}

impl Projections<'_> {
    /// Keys and values of `x (1, tokens, width)`, each `(1, tokens, channels)`.
    pub(super) fn of(&self, x: &Activations) -> Result<Projected> {
        let (mut of_keys, mut of_values) = (x.clone(), x.clone());
        for transform in self.transforms.iter().filter(|transform| transform.applies_to(x.channels())) {
            of_keys = transform.keys(self.device, &of_keys)?;
            of_values = transform.values(self.device, &of_values)?;
        }
        Ok((self.key.forward(&of_keys)?, self.value.forward(&of_values)?))
    }

    /// What queries `(1, queries, channels)` find in a row's own keys and what is appended to them.
    pub(super) fn own(
        &self,
        q: &Activations,
        own: Projected,
        precision: Precision,
        changes: &[&AttentionChange],
    ) -> Result<Own> {
        let device = self.device;
        if own.0.batch() != 1 || q.batch() != 1 {
            bail!("unet: keys are appended to one row at a time");
        }
        let here = |tensor: &Tensor| device.convert(&upload(device, tensor)?, precision);
        let mut parts = vec![own];
        for change in changes {
            let (appended, weight) = match change {
                AttentionChange::Append { keys: AppendedKeys::Context(tokens), weight, .. } => {
                    (self.of(&here(tokens)?)?, *weight)
                }
                AttentionChange::Append { keys: AppendedKeys::KeyValue(key, value), weight, owner } => {
                    if key.dim(2) != q.channels() {
                        let (given, needed) = (key.dim(2), q.channels());
                        let text = format!("keys of {given} channels are appended to those of {needed}");
                        return Err(wrong_rule(owner, &text));
                    }
                    ((here(key)?, here(value)?), *weight)
                }
                AttentionChange::FromBank { bank, picture, weight } => {
                    let Some(kept) = bank.get(self.place, *picture) else { continue };
                    (self.of(&here(&kept)?)?, *weight)
                }
                _ => continue,
            };
            let (key, value) = appended;
            let value = if weight == 1.0 { value } else { device.blend((&value, weight, None), None)? };
            parts.push((key, value));
        }
        let own_keys = parts[0].0.dims3()?.1;
        let join =
            |of: fn(&Projected) -> &Activations| behind(device, &parts.iter().map(of).collect::<Vec<_>>());
        let (key, value) =
            if parts.len() == 1 { parts.remove(0) } else { (join(|part| &part.0)?, join(|part| &part.1)?) };
        let bias = bias(changes, (q.dims3()?.1, own_keys), key.dims3()?.1)?;
        for change in changes {
            if let AttentionChange::Received { bank, picture } = change {
                bank.keep(self.place, *picture, received(device, q, &key, self.heads, bias.as_ref())?);
            }
        }
        match bias {
            None => Ok(Own::Keys(keys(device, &key, &value, self.heads)?)),
            Some(bias) => Ok(Own::Found(attention_with_bias(device, q, (&key, &value), self.heads, &bias)?)),
        }
    }
}

fn wrong_rule(owner: &str, text: &str) -> Error {
    Error::Stage(format!("plugin '{owner}', attention: {text}"))
}

/// The sum of all biases, `(1 or queries, keys)`: nothing is added to the scores of keys that were appended.
fn bias(changes: &[&AttentionChange], (queries, own): (usize, usize), keys: usize) -> Result<Option<Tensor>> {
    let all = || {
        changes.iter().filter_map(|change| match change {
            AttentionChange::Bias { bias, owner } => Some((bias, owner)),
            _ => None,
        })
    };
    let fits =
        |bias: &Tensor| matches!(*bias.dims(), [rows, of] if (rows == 1 || rows == queries) && of == own);
    if let Some((wrong, owner)) = all().find(|(bias, _)| !fits(bias)) {
        let dims = wrong.dims();
        let text = format!("a bias {dims:?} where there are {queries} queries and {own} keys");
        return Err(wrong_rule(owner, &text));
    }
    let Some(rows) = all().map(|(bias, _)| bias.dim(0)).max() else { return Ok(None) };
    let mut sum = vec![0.0; rows * keys];
    for (bias, _) in all() {
        for (query, sum) in sum.chunks_mut(keys).enumerate() {
            let row = if bias.dim(0) == 1 { 0 } else { query };
            let from = bias.values().get(row * own..(row + 1) * own).unwrap_or_default();
            sum.iter_mut().zip(from).for_each(|(sum, value)| *sum += value);
        }
    }
    Tensor::new(sum, [rows, keys]).map(Some)
}

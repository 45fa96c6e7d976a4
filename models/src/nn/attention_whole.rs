//! Attention whose scores are looked at one by one, on the host in f32: with numbers added to them, or to tell what attention each
//! key receives. Slower than the devices' own, which never have a score in memory; for few keys or small pictures.

use rayon::prelude::*;

use super::backend::{Activations, Device};
use crate::error::{Result, bail};
use crate::tensor::Tensor;

/// Queries, keys and values on the host.
struct Host {
    batch: usize,
    queries: usize,
    keys: usize,
    heads: usize,
    channels: usize,
    q: Vec<f32>,
    k: Vec<f32>,
}

impl Host {
    fn new(device: &Device, q: &Activations, k: &Activations, heads: usize) -> Result<Self> {
        let (batch, queries, channels) = q.dims3()?;
        let (of_keys, keys, width) = k.dims3()?;
        if of_keys != batch || width != channels || heads == 0 || !channels.is_multiple_of(heads) || keys == 0
        {
            bail!("attention: queries {:?} and keys {:?} with {heads} heads", q.dims(), k.dims());
        }
        let (q, k) = (device.download(q)?, device.download(k)?);
        Ok(Self { batch, queries, keys, heads, channels, q, k })
    }

    /// softmax(q kᵀ / √head_dim + bias) of one query of one head, in f32, sums in f64.
    fn weights(&self, sample: usize, head: usize, query: usize, bias: Option<&Tensor>, weights: &mut [f32]) {
        let width = self.channels / self.heads;
        let scale = 1.0 / (width as f64).sqrt();
        let q = &self.q[(sample * self.queries + query) * self.channels + head * width..][..width];
        let bias = bias.map(|bias| {
            let row = if bias.dim(0) == 1 { 0 } else { query };
            &bias.values()[row * self.keys..][..self.keys]
        });
        for (key, weight) in weights.iter_mut().enumerate() {
            let k = &self.k[(sample * self.keys + key) * self.channels + head * width..][..width];
            let product: f64 = q.iter().zip(k).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
            *weight = (product * scale) as f32 + bias.map_or(0.0, |bias| bias[key]);
        }
        let most = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut total = 0.0_f64;
        for weight in &mut *weights {
            *weight = (*weight - most).exp();
            total += f64::from(*weight);
        }
        for weight in weights {
            *weight = (f64::from(*weight) / total) as f32;
        }
    }
}

fn check_bias(bias: &Tensor, queries: usize, keys: usize) -> Result<()> {
    if matches!(*bias.dims(), [rows, of_keys] if (rows == 1 || rows == queries) && of_keys == keys) {
        return Ok(());
    }
    bail!("attention: a bias {:?} for {queries} queries and {keys} keys", bias.dims());
}

/// softmax(q kᵀ / √head_dim + bias) v for each head: `q (batch, queries, channels)`, `k` and `v` `(batch, keys, channels)` → as
/// `q`, in its precision. `bias` is `(1 or queries, keys)`, for all heads.
pub fn attention_with_bias(
    device: &Device,
    q: &Activations,
    (k, v): (&Activations, &Activations),
    heads: usize,
    bias: &Tensor,
) -> Result<Activations> {
    let host = Host::new(device, q, k, heads)?;
    let Host { queries, keys, channels, .. } = host;
    check_bias(bias, queries, keys)?;
    if v.dims() != k.dims() {
        bail!("attention: keys {:?} and values {:?}", k.dims(), v.dims());
    }
    let v = device.download(v)?;
    let width = channels / heads;
    let mut out = vec![0.0; host.q.len()];
    out.par_chunks_mut(channels).enumerate().for_each(|(at, out)| {
        let (sample, query) = (at / queries, at % queries);
        let mut weights = vec![0.0; keys];
        for (head, out) in out.chunks_mut(width).enumerate() {
            host.weights(sample, head, query, Some(bias), &mut weights);
            for (channel, out) in out.iter_mut().enumerate() {
                let values =
                    v[sample * keys * channels..].iter().skip(head * width + channel).step_by(channels);
                let sum: f64 = weights.iter().zip(values).map(|(w, v)| f64::from(*w) * f64::from(*v)).sum();
                *out = sum as f32;
            }
        }
    });
    device.convert(&device.upload(&out, q.dims())?, q.precision())
}

/// The attention that each key receives: the sum over queries of the mean over heads of softmax(q kᵀ / √head_dim + bias),
/// `(batch, keys)`. `bias` as of [`attention_with_bias`]; none if `None`.
pub fn received(
    device: &Device,
    q: &Activations,
    k: &Activations,
    heads: usize,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    let host = Host::new(device, q, k, heads)?;
    let Host { batch, queries, keys, .. } = host;
    if let Some(bias) = bias {
        check_bias(bias, queries, keys)?;
    }
    let sums = (0..batch * heads).into_par_iter().map(|at| {
        let (mut sums, mut weights) = (vec![0.0_f64; keys], vec![0.0; keys]);
        for query in 0..queries {
            host.weights(at / heads, at % heads, query, bias, &mut weights);
            sums.iter_mut().zip(&weights).for_each(|(sum, weight)| *sum += f64::from(*weight));
        }
        sums
    });
    let sums: Vec<Vec<f64>> = sums.collect();
    let of_sample = |sums: &[Vec<f64>]| -> Vec<f32> {
        let of_key = |key: usize| sums.iter().map(|of_head| of_head[key]).sum::<f64>() / heads as f64;
        (0..keys).map(|key| of_key(key) as f32).collect()
    };
    Tensor::new(sums.chunks(heads).flat_map(of_sample).collect(), [batch, keys])
}

/// Sequences `(1, tokens, channels)` one behind the other.
pub fn behind(device: &Device, parts: &[&Activations]) -> Result<Activations> {
    let mut flat = vec![];
    for part in parts {
        let (1, tokens, channels) = part.dims3()? else { bail!("{:?} are no one sequence", part.dims()) };
        flat.push((*part).clone().reshaped([tokens, channels])?);
    }
    let joined = device.stack(&flat.iter().collect::<Vec<_>>())?;
    let (tokens, channels) = (joined.batch(), joined.channels());
    joined.reshaped([1, tokens, channels])
}

//! CLIP's text encoder (Radford et al. 2021), as Stable Diffusion 1.x uses it: a causal transformer.

use candle_core::{Result, Tensor, bail};
use latentd_kernels::{WeightDtype, Weights};

use super::{count, dim};
use crate::files::{Loader, SafeTensors};
use crate::nn::{Activation, Activations, Ends, Keys, LayerNorm, Linear, Precision, attention};

/// What can be told from the tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClipConfig {
    /// Tokens in the vocabulary.
    pub vocabulary: usize,
    /// Longest sequence.
    pub positions: usize,
    /// Width of a token.
    pub width: usize,
    /// Width of the feed-forward part.
    pub intermediate: usize,
    /// Transformer layers.
    pub layers: usize,
}

impl ClipConfig {
    /// CLIP ViT-L/14's text encoder.
    pub const SD15: Self =
        Self { vocabulary: 49408, positions: 77, width: 768, intermediate: 3072, layers: 12 };

    /// Reads it from the tensors under `prefix`.
    pub fn detect(file: &SafeTensors, prefix: &str) -> crate::Result<Self> {
        let table = format!("{prefix}embeddings.token_embedding.weight");
        Ok(Self {
            vocabulary: dim(file, &table, 0)?,
            width: dim(file, &table, 1)?,
            positions: dim(file, &format!("{prefix}embeddings.position_embedding.weight"), 0)?,
            intermediate: dim(file, &format!("{prefix}encoder.layers.0.mlp.fc1.weight"), 0)?,
            layers: count(file, |i| format!("{prefix}encoder.layers.{i}.")),
        })
    }

    /// 64 channels a head, at least one head.
    pub fn heads(&self) -> usize {
        (self.width / 64).max(1)
    }
}

/// The encoder.
pub struct ClipText {
    config: ClipConfig,
    tokens: (WeightDtype, Vec<u8>),
    positions: Vec<f32>,
    layers: Vec<Layer>,
    final_norm: LayerNorm,
    precision: Precision,
}

struct Layer {
    norm_1: LayerNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    norm_2: LayerNorm,
    fc_1: Linear,
    fc_2: Linear,
}

impl ClipText {
    /// Reads the tensors under `prefix`.
    pub fn load(loader: &Loader, prefix: &str, config: ClipConfig) -> crate::Result<Self> {
        let ClipConfig { vocabulary, positions, width, intermediate, layers } = config;
        let (dtype, table) =
            loader.table(&format!("{prefix}embeddings.position_embedding.weight"), positions, width)?;
        let layers = (0..layers)
            .map(|index| {
                let name = |part: &str| format!("{prefix}encoder.layers.{index}.{part}");
                let square = |part: &str| Linear::load(loader, &name(part), width, width);
                Ok(Layer {
                    norm_1: LayerNorm::load(loader, &name("layer_norm1"), width)?,
                    query: square("self_attn.q_proj")?,
                    key: square("self_attn.k_proj")?,
                    value: square("self_attn.v_proj")?,
                    out: square("self_attn.out_proj")?,
                    norm_2: LayerNorm::load(loader, &name("layer_norm2"), width)?,
                    fc_1: Linear::load(loader, &name("mlp.fc1"), width, intermediate)?,
                    fc_2: Linear::load(loader, &name("mlp.fc2"), intermediate, width)?,
                })
            })
            .collect::<crate::Result<_>>()?;
        Ok(Self {
            tokens: loader.table(&format!("{prefix}embeddings.token_embedding.weight"), vocabulary, width)?,
            positions: Weights { dtype, bytes: &table }.to_f32(),
            layers,
            final_norm: LayerNorm::load(loader, &format!("{prefix}final_layer_norm"), width)?,
            precision: loader.precision(),
            config,
        })
    }

    /// What this encoder is.
    pub fn config(&self) -> &ClipConfig {
        &self.config
    }

    /// Bytes of its weights.
    pub fn bytes(&self) -> usize {
        let layers = self.layers.iter().map(|layer| {
            let linear = [&layer.query, &layer.key, &layer.value, &layer.out, &layer.fc_1, &layer.fc_2];
            linear.iter().map(|part| part.bytes()).sum::<usize>()
                + layer.norm_1.bytes()
                + layer.norm_2.bytes()
        });
        self.tokens.1.len() + self.positions.len() * 4 + layers.sum::<usize>() + self.final_norm.bytes()
    }

    /// Token ids, each sequence of the same length, at most `positions` → hidden states
    /// `(batch, tokens, width)`: the embeddings first, then one per layer.
    pub fn hidden_states(&self, ids: &[Vec<u32>]) -> Result<Vec<Tensor>> {
        let mut x = self.embed(ids)?;
        let heads = self.config.heads();
        let mut states = vec![x.to_tensor()?];
        for layer in &self.layers {
            // The stream between layers is f32 in any precision.
            let h = layer.norm_1.forward(&x, self.precision)?;
            let keys = Keys::new(&layer.key.forward(&h)?, &layer.value.forward(&h)?, heads)?;
            let h = attention(&layer.query.forward(&h)?, &keys, true)?;
            x = layer.out.forward_with(&h, &Ends::add(&x))?;
            let h = layer.norm_2.forward(&x, self.precision)?;
            let h = layer
                .fc_1
                .forward_with(&h, &Ends { activation: Activation::QuickGelu, ..Ends::default() })?;
            x = layer.fc_2.forward_with(&h, &Ends::add(&x))?;
            states.push(x.to_tensor()?);
        }
        Ok(states)
    }

    /// The final layer norm of any hidden state.
    pub fn final_norm(&self, hidden: &Tensor) -> Result<Tensor> {
        self.final_norm.forward(&Activations::from_tensor(hidden)?, Precision::F32)?.to_tensor()
    }

    fn embed(&self, ids: &[Vec<u32>]) -> Result<Activations> {
        let ClipConfig { vocabulary, positions, width, .. } = self.config;
        let length = ids.first().map_or(0, Vec::len);
        if length == 0 || length > positions || ids.iter().any(|sequence| sequence.len() != length) {
            bail!("clip: sequences of equal length, 1 to {positions} tokens");
        }
        let (dtype, table) = &self.tokens;
        let row_bytes = width * dtype.size();
        let mut values = Vec::with_capacity(ids.len() * length * width);
        for sequence in ids {
            for (id, position) in sequence.iter().zip(self.positions.chunks_exact(width)) {
                let start = *id as usize * row_bytes;
                let Some(bytes) = table.get(start..start + row_bytes) else {
                    bail!("clip: token {id} is beyond the vocabulary of {vocabulary}");
                };
                let row = Weights { dtype: *dtype, bytes }.to_f32();
                values.extend(row.iter().zip(position).map(|(token, position)| token + position));
            }
        }
        Activations::from_f32(&values, [ids.len(), length, width])
    }
}

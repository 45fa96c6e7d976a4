//! CLIP's text encoder (Radford et al. 2021), as Stable Diffusion 1.x uses it: a causal transformer.

use std::sync::Arc;

use latentd_kernels::Weights;

use super::detect::{count, dim};
use crate::error::{Result, bail};
use crate::files::Tensors;
use crate::nn::{
    Activation, Activations, Device, Epilogue, LayerNorm, Linear, Loader, Precision, Run, Table, attention,
    keys, upload,
};
use crate::tensor::Tensor;

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
    pub fn detect(file: &Tensors, prefix: &str) -> Result<Self> {
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

/// What stands in the place of one token: a vector of an embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenVector {
    /// Which of the sequences.
    pub sequence: usize,
    /// Which of its tokens.
    pub position: usize,
    /// `width` numbers.
    pub vector: Arc<[f32]>,
}

/// The encoder.
pub struct ClipText {
    config: ClipConfig,
    device: Device,
    tokens: Arc<Table>,
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
    pub fn load(loader: &Loader, prefix: &str, config: ClipConfig) -> Result<Self> {
        let ClipConfig { vocabulary, positions, width, intermediate, layers } = config;
        let table =
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
            .collect::<Result<_>>()?;
        Ok(Self {
            tokens: loader.table(&format!("{prefix}embeddings.token_embedding.weight"), vocabulary, width)?,
            positions: Weights { dtype: table.dtype, bytes: &table.bytes }.to_f32(),
            device: loader.device().clone(),
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

    /// Where it is.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Token ids, each sequence of the same length, at most `positions` → hidden states
    /// `(batch, tokens, width)`: the embeddings first, then one per layer. Each of `vectors` stands in the place of a
    /// token.
    pub fn hidden_states(&self, ids: &[Vec<u32>], vectors: &[TokenVector], run: &Run) -> Result<Vec<Tensor>> {
        let mut states = vec![];
        run.on(&self.device, || {
            self.run(ids, vectors, run, |_, state| {
                states.push(Tensor::new(self.device.download(state)?, state.dims())?);
                Ok(())
            })
        })?;
        Ok(states)
    }

    /// As [`Self::hidden_states`], of which the last, or the `clip_skip`-th from the end, after the final layer norm.
    pub fn encode(
        &self,
        ids: &[Vec<u32>],
        vectors: &[TokenVector],
        clip_skip: usize,
        run: &Run,
    ) -> Result<Tensor> {
        let Some(wanted) = (self.layers.len() + 1).checked_sub(clip_skip) else {
            bail!("clip: no hidden state {clip_skip} from the end");
        };
        let mut encoded = None;
        run.on(&self.device, || {
            self.run(ids, vectors, run, |index, state| {
                if index == wanted {
                    let state = self.final_norm.forward(state, Precision::F32)?;
                    encoded = Some(Tensor::new(self.device.download(&state)?, state.dims())?);
                }
                Ok(())
            })
        })?;
        match encoded {
            Some(encoded) => Ok(encoded),
            None => bail!("clip: no hidden state {clip_skip} from the end"),
        }
    }

    /// The final layer norm of any hidden state.
    pub fn final_norm(&self, hidden: &Tensor) -> Result<Tensor> {
        let hidden = self.final_norm.forward(&upload(&self.device, hidden)?, Precision::F32)?;
        Tensor::new(self.device.download(&hidden)?, hidden.dims())
    }

    /// Runs all layers and shows each hidden state.
    fn run(
        &self,
        ids: &[Vec<u32>],
        vectors: &[TokenVector],
        run: &Run,
        mut show: impl FnMut(usize, &Activations) -> Result<()>,
    ) -> Result<()> {
        let device = &self.device;
        let heads = self.config.heads();
        let mut x = upload(device, &self.embed(ids, vectors)?)?;
        show(0, &x)?;
        for (index, layer) in self.layers.iter().enumerate() {
            run.enter(device, format_args!("clip.{index}"))?;
            // The stream between layers is f32 in any precision.
            let h = layer.norm_1.forward(&x, self.precision)?;
            let keys = keys(device, &layer.key.forward(&h)?, &layer.value.forward(&h)?, heads)?;
            let h = attention(device, &layer.query.forward(&h)?, &keys, true)?;
            x = layer.out.forward_with(&h, &Epilogue::add(&x))?;
            let h = layer.norm_2.forward(&x, self.precision)?;
            let h = layer
                .fc_1
                .forward_with(&h, &Epilogue { activation: Activation::QuickGelu, ..Epilogue::default() })?;
            x = layer.fc_2.forward_with(&h, &Epilogue::add(&x))?;
            show(index + 1, &x)?;
        }
        Ok(())
    }

    fn embed(&self, ids: &[Vec<u32>], vectors: &[TokenVector]) -> Result<Tensor> {
        let ClipConfig { vocabulary, positions, width, .. } = self.config;
        let length = ids.first().map_or(0, Vec::len);
        if length == 0 || length > positions || ids.iter().any(|sequence| sequence.len() != length) {
            bail!("clip: sequences of equal length, 1 to {positions} tokens");
        }
        if let Some(wrong) =
            vectors.iter().find(|given| given.sequence >= ids.len() || given.position >= length)
        {
            bail!(
                "clip: a vector for token {} of sequence {}, which is not there",
                wrong.position,
                wrong.sequence
            );
        }
        let dims = [ids.len(), length, width];
        if !self.device.computes() {
            return Ok(Tensor::full(0.0, dims));
        }
        let Table { dtype, bytes: table, .. } = &*self.tokens;
        let row_bytes = width * dtype.size();
        let mut values = Vec::with_capacity(ids.len() * length * width);
        for (index, sequence) in ids.iter().enumerate() {
            for (place, (id, position)) in sequence.iter().zip(self.positions.chunks_exact(width)).enumerate()
            {
                let given = vectors.iter().find(|given| (given.sequence, given.position) == (index, place));
                let add = |row: &[f32]| row.iter().zip(position).map(|(a, b)| a + b).collect::<Vec<_>>();
                if let Some(given) = given {
                    if given.vector.len() != width {
                        bail!("clip: a vector of {} numbers for width {width}", given.vector.len());
                    }
                    values.extend(add(&given.vector));
                    continue;
                }
                let start = *id as usize * row_bytes;
                let Some(bytes) = table.get(start..start + row_bytes) else {
                    bail!("clip: token {id} is beyond the vocabulary of {vocabulary}");
                };
                values.extend(add(&Weights { dtype: *dtype, bytes }.to_f32()));
            }
        }
        Tensor::new(values, dims)
    }
}

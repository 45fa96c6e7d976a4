//! What an IP-Adapter "plus" makes few tokens of many with: a perceiver resampler (Alayrac et al. 2022, arXiv:2204.14198).

use crate::error::Result;
use crate::files::Tensors;
use crate::networks::detect::{count, dim};
use crate::nn::{
    Activations, Device, LayerNorm, Linear, Loader, Pointwise, Precision, Run, add, attention, behind, keys,
};

/// Channels of a head.
const OF_HEAD: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResamplerConfig {
    /// Channels of a token that comes in.
    pub inputs: usize,
    /// Tokens that come out.
    pub tokens: usize,
    width: usize,
    /// Channels of all heads.
    inner: usize,
    intermediate: usize,
    layers: usize,
    /// Channels of a token that comes out.
    pub outputs: usize,
}

struct Layer {
    norm_seen: LayerNorm,
    norm_own: LayerNorm,
    query: Linear,
    /// Keys and values, one behind the other.
    key_value: Linear,
    out: Linear,
    norm: LayerNorm,
    fc_1: Linear,
    fc_2: Linear,
}

/// The layers; in f32 throughout, for it runs once for a picture.
pub(super) struct Resampler {
    config: ResamplerConfig,
    device: Device,
    /// `(tokens, width)`.
    latents: Vec<f32>,
    proj_in: Linear,
    layers: Vec<Layer>,
    proj_out: Linear,
    norm_out: LayerNorm,
}

impl ResamplerConfig {
    /// Of the tensors under `prefix`.
    pub(super) fn detect(file: &Tensors, prefix: &str) -> Result<Self> {
        let name = |part: &str| format!("{prefix}{part}");
        Ok(Self {
            inputs: dim(file, &name("proj_in.weight"), 1)?,
            tokens: dim(file, &name("latents"), 1)?,
            width: dim(file, &name("latents"), 2)?,
            inner: dim(file, &name("layers.0.0.to_q.weight"), 0)?,
            intermediate: dim(file, &name("layers.0.1.1.weight"), 0)?,
            layers: count(file, |index| name(&format!("layers.{index}."))),
            outputs: dim(file, &name("proj_out.weight"), 0)?,
        })
    }

    /// Whether its heads are whole.
    pub(super) fn is_whole(&self) -> bool {
        self.inner.is_multiple_of(OF_HEAD)
    }
}

impl Resampler {
    pub(super) fn load(loader: &Loader, prefix: &str, config: &ResamplerConfig) -> Result<Self> {
        let ResamplerConfig { inputs, tokens, width, inner, intermediate, layers, outputs } = *config;
        let name = |part: &str| format!("{prefix}{part}");
        let layer = |index: usize| {
            let part = |part: &str| name(&format!("layers.{index}.{part}"));
            let linear = |at: &str, from, to| Linear::load_no_bias(loader, &part(at), from, to);
            Ok(Layer {
                norm_seen: LayerNorm::load(loader, &part("0.norm1"), width)?,
                norm_own: LayerNorm::load(loader, &part("0.norm2"), width)?,
                query: linear("0.to_q", width, inner)?,
                key_value: linear("0.to_kv", width, 2 * inner)?,
                out: linear("0.to_out", inner, width)?,
                norm: LayerNorm::load(loader, &part("1.0"), width)?,
                fc_1: linear("1.1", width, intermediate)?,
                fc_2: linear("1.3", intermediate, width)?,
            })
        };
        Ok(Self {
            latents: loader.numbers(&name("latents"), &[1, tokens, width])?,
            proj_in: Linear::load(loader, &name("proj_in"), inputs, width)?,
            layers: (0..layers).map(layer).collect::<Result<_>>()?,
            proj_out: Linear::load(loader, &name("proj_out"), width, outputs)?,
            norm_out: LayerNorm::load(loader, &name("norm_out"), outputs)?,
            device: loader.device().clone(),
            config: config.clone(),
        })
    }

    /// `(1, any, inputs)` → `(1, tokens, outputs)`, f32.
    pub(super) fn forward(&self, seen: &Activations, run: &Run) -> Result<Activations> {
        let (device, &ResamplerConfig { tokens, width, .. }) = (&self.device, &self.config);
        let seen = self.proj_in.forward(seen)?;
        let mut own = device.upload(&self.latents, &[1, tokens, width])?;
        for (index, layer) in self.layers.iter().enumerate() {
            run.enter(device, format_args!("ip-adapter.{index}"))?;
            own = layer.forward(device, &seen, &own)?;
        }
        self.norm_out.forward(&self.proj_out.forward(&own)?, Precision::F32)
    }
}

impl Layer {
    fn forward(&self, device: &Device, seen: &Activations, own: &Activations) -> Result<Activations> {
        let seen = self.norm_seen.forward(seen, Precision::F32)?;
        let h = self.norm_own.forward(own, Precision::F32)?;
        let query = self.query.forward(&h)?;
        let both = self.key_value.forward(&behind(device, &[&seen, &h])?)?;
        let (_, count, channels) = both.dims3()?;
        let half = |which: usize| device.rows(&both, &[1, count, channels / 2], &|row| 2 * row + which);
        let keys = keys(device, &half(0)?, &half(1)?, query.channels() / OF_HEAD)?;
        let found = self.out.forward(&attention(device, &query, &keys, false)?)?;
        let own = add(device, &found, own)?;
        let h = self.fc_1.forward(&self.norm.forward(&own, Precision::F32)?)?;
        let h = self.fc_2.forward(&device.pointwise(&h, Pointwise::Gelu)?)?;
        add(device, &h, &own)
    }
}

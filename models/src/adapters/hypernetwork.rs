//! Hypernetworks: small networks through which an attention's tokens go on their way to keys and values, as A1111 trains
//! them (`modules/hypernetworks/hypernetwork.py`).

use std::collections::BTreeMap;
use std::sync::Arc;

use latentd_kernels::Weights;
use sha2::{Digest, Sha256};

use super::hypernetwork_layers::{About, LayerPlan, plan};
use crate::files::Tensors;
use crate::nn::backend::Layout;
use crate::nn::backend::dry_run::dry_run;
use crate::nn::{
    Activation, Activations, Device, Epilogue, KeyValueTransform, LayerNorm, Linear, Loader, Pointwise,
    Precision,
};
use crate::{Error, Result};

/// What a file says of its networks: names and shapes, none of which is read yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Hypernetwork {
    /// For each width of tokens the network of keys and that of values.
    pairs: BTreeMap<usize, [Vec<LayerPlan>; 2]>,
}

impl Hypernetwork {
    /// Checks a file of A1111's: for each width two networks, `{width}.0.linear.…` of keys and `{width}.1.linear.…` of
    /// values, each with layers as its metadata say. Nothing is read.
    ///
    /// # Errors
    /// If a layer is missing, of another shape, or has an activation that is not known.
    pub fn of(file: &Tensors) -> Result<Self> {
        let wrong = |reason: String| Error::model(file.path(), reason);
        let about = About::of(file.metadata()).map_err(wrong)?;
        let mut widths: Vec<usize> =
            file.names().filter_map(|name| name.split_once('.')?.0.parse().ok()).collect();
        widths.sort_unstable();
        widths.dedup();
        if widths.is_empty() {
            return Err(wrong("has no networks; a hypernetwork has two for each width".to_owned()));
        }
        let mut pairs = BTreeMap::new();
        for width in widths {
            let net = |part: usize| plan(file, &format!("{width}.{part}."), width, &about).map_err(wrong);
            pairs.insert(width, [net(0)?, net(1)?]);
        }
        Ok(Self { pairs })
    }

    /// The widths of tokens that it changes, ascending.
    pub fn widths(&self) -> impl Iterator<Item = usize> {
        self.pairs.keys().copied()
    }

    /// How many times as wide as its tokens the widest of its layers is, rounded up.
    pub fn widening(&self) -> usize {
        let layers = |(width, nets): (&usize, &[Vec<LayerPlan>; 2])| {
            let widest = nets.iter().flatten().map(|layer| layer.outputs).max().unwrap_or_default();
            widest.div_ceil((*width).max(1))
        };
        self.pairs.iter().map(layers).max().unwrap_or_default()
    }

    /// Bytes of its weights on a device, in a precision.
    pub fn weight_bytes(&self, precision: Precision) -> Result<u64> {
        let (device, counter) = dry_run();
        for layer in self.pairs.values().flatten().flatten() {
            let layout = Layout::Linear { outputs: layer.outputs, inputs: layer.inputs };
            let counted = device.matrix(layout, precision, Weights { dtype: layer.dtype, bytes: &[] })?;
            counted.map_err(|error| Error::Compute(error.to_string()))?;
            // The bias, and the factors and biases of a norm.
            for _ in 0..if layer.norm.is_some() { 3 } else { 1 } {
                device.vector(vec![], layer.outputs)?;
            }
        }
        Ok(counter.counts().weights)
    }

    /// Reads the networks of the file that this is of, for attentions on a device that compute in a precision. What they
    /// give is added at `strength`. `identity` tells the file's content from others.
    ///
    /// # Errors
    /// If the file cannot be read, or a weight is not finite.
    pub fn load(
        &self,
        file: &Tensors,
        device: &Device,
        precision: Precision,
        strength: f32,
        identity: [u8; 32],
    ) -> Result<Arc<dyn KeyValueTransform>> {
        if !strength.is_finite() {
            return Err(Error::Request(format!(
                "a hypernetwork's strength is {strength}; a finite number is needed"
            )));
        }
        let pairs = device.run(|| {
            let loader = Loader::file(file, device, precision);
            let pairs = self.pairs.iter().map(|(width, [keys, values])| {
                Ok((*width, [Net::load(&loader, keys)?, Net::load(&loader, values)?]))
            });
            pairs.collect::<Result<BTreeMap<_, _>>>()
        })?;
        file.check_intact()?;
        let digest = Sha256::new().chain_update(identity).chain_update(strength.to_le_bytes()).finalize();
        Ok(Arc::new(Loaded { pairs, strength, digest: digest.into() }))
    }
}

/// The networks on a device.
struct Loaded {
    pairs: BTreeMap<usize, [Net; 2]>,
    strength: f32,
    digest: [u8; 32],
}

struct Net(Vec<Layer>);

struct Layer {
    linear: Linear,
    activation: Option<Pointwise>,
    norm: Option<LayerNorm>,
}

impl Layer {
    fn load(loader: &Loader, plan: &LayerPlan) -> Result<Self> {
        let norm = plan.norm.as_ref().map(|name| LayerNorm::load(loader, name, plan.outputs)).transpose()?;
        let linear = Linear::load(loader, &plan.name, plan.inputs, plan.outputs)?;
        Ok(Self { linear, activation: plan.activation, norm })
    }

    /// `(batch, tokens, inputs) → (batch, tokens, outputs)`.
    fn forward(&self, device: &Device, x: &Activations) -> Result<Activations> {
        let (activation, rest) = split(self.activation);
        let y = self.linear.forward_with(x, &Epilogue { activation, ..Epilogue::default() })?;
        let y = rest.map_or(Ok(y.clone()), |function| device.pointwise(&y, function))?;
        self.norm.as_ref().map_or(Ok(y.clone()), |norm| norm.forward(&y, x.precision()))
    }
}

/// What a product ends with by itself, and what must follow it.
fn split(activation: Option<Pointwise>) -> (Activation, Option<Pointwise>) {
    match activation {
        Some(Pointwise::Relu) => (Activation::Relu, None),
        Some(Pointwise::Silu) => (Activation::Silu, None),
        other => (Activation::None, other),
    }
}

impl Net {
    fn load(loader: &Loader, layers: &[LayerPlan]) -> Result<Self> {
        layers.iter().map(|layer| Layer::load(loader, layer)).collect::<Result<_>>().map(Self)
    }

    /// `x + strength · net(x)`.
    fn forward(&self, device: &Device, x: &Activations, strength: f32) -> Result<Activations> {
        let Some((last, first)) = self.0.split_last() else { return Ok(x.clone()) };
        let mut y = x.clone();
        for layer in first {
            y = layer.forward(device, &y)?;
        }
        match (&last.norm, split(last.activation)) {
            // The product adds it by itself, unless ReLU must come before that.
            (None, (activation @ (Activation::None | Activation::Silu), None)) => {
                let epilogue = Epilogue { activation, scale: strength, ..Epilogue::add(x) };
                last.linear.forward_with(&y, &epilogue)
            }
            _ => device.blend((x, 1.0, None), Some((&last.forward(device, &y)?, strength, None))),
        }
    }
}

impl Loaded {
    fn forward(&self, device: &Device, tokens: &Activations, which: usize) -> Result<Activations> {
        match self.pairs.get(&tokens.channels()).and_then(|pair| pair.get(which)) {
            Some(net) => net.forward(device, tokens, self.strength),
            None => Ok(tokens.clone()),
        }
    }
}

impl KeyValueTransform for Loaded {
    fn digest(&self) -> [u8; 32] {
        self.digest
    }

    fn applies_to(&self, width: usize) -> bool {
        self.pairs.contains_key(&width)
    }

    fn keys(&self, device: &Device, tokens: &Activations) -> Result<Activations> {
        self.forward(device, tokens, 0)
    }

    fn values(&self, device: &Device, tokens: &Activations) -> Result<Activations> {
        self.forward(device, tokens, 1)
    }
}

//! Linear layers.

use super::backend::{Activations, Device, Epilogue, Layout, Matrix, Precision, Vector};
use super::loader::Loader;
use crate::error::{Result, bail};

/// `y = x Wᵀ + b` over the last dimension. A 1×1 convolution is one too.
#[derive(Clone)]
pub struct Linear {
    device: Device,
    inputs: usize,
    outputs: usize,
    weight: Matrix,
    bias: Option<Vector>,
}

impl Linear {
    /// With bias: tensors `{name}.weight` and `{name}.bias`; computed in the loader's precision.
    pub fn load(loader: &Loader, name: &str, inputs: usize, outputs: usize) -> Result<Self> {
        Self::load_no_bias(loader, name, inputs, outputs)?.with_bias(loader, name)
    }

    /// Without bias: tensor `{name}.weight`.
    pub fn load_no_bias(loader: &Loader, name: &str, inputs: usize, outputs: usize) -> Result<Self> {
        Self::in_precision(loader, name, inputs, outputs, loader.precision())
    }

    /// With bias, computed in f32 in any case.
    pub fn load_f32(loader: &Loader, name: &str, inputs: usize, outputs: usize) -> Result<Self> {
        Self::in_precision(loader, name, inputs, outputs, Precision::F32)?.with_bias(loader, name)
    }

    fn in_precision(
        loader: &Loader,
        name: &str,
        inputs: usize,
        outputs: usize,
        precision: Precision,
    ) -> Result<Self> {
        let weight =
            loader.matrix(&format!("{name}.weight"), Layout::Linear { outputs, inputs }, precision)?;
        Ok(Self { device: loader.device().clone(), inputs, outputs, weight, bias: None })
    }

    fn with_bias(self, loader: &Loader, name: &str) -> Result<Self> {
        let bias = loader.vector(&format!("{name}.bias"), self.outputs)?;
        Ok(Self { bias: Some(bias), ..self })
    }

    /// `(…, inputs) → (…, outputs)`.
    pub fn forward(&self, x: &Activations) -> Result<Activations> {
        self.forward_with(x, &Epilogue::default())
    }

    /// `(…, inputs) → (…, outputs)`, finished by `epilogue`.
    pub fn forward_with(&self, x: &Activations, epilogue: &Epilogue) -> Result<Activations> {
        let dims = self.dims(x, self.outputs)?;
        epilogue.check(&dims)?;
        let epilogue = Epilogue { bias: self.bias.as_ref(), ..*epilogue };
        self.device.product(x, &self.weight, &epilogue, &dims)
    }

    /// Those of `x` with another last one.
    fn dims(&self, x: &Activations, outputs: usize) -> Result<Vec<usize>> {
        let mut dims = x.dims().to_vec();
        match dims.last_mut() {
            Some(last) if *last == self.inputs => *last = outputs,
            _ => bail!("linear: input {:?} for {} inputs", x.dims(), self.inputs),
        }
        Ok(dims)
    }
}

/// A linear layer to twice as many outputs, whose first half is multiplied by the exact (erf) GELU of the second.
#[derive(Clone)]
pub struct GatedLinear(Linear);

impl GatedLinear {
    /// Tensors `{name}.weight` and `{name}.bias`, for `2 · outputs`; `outputs` a multiple of 16.
    pub fn load(loader: &Loader, name: &str, inputs: usize, outputs: usize) -> Result<Self> {
        let layout = Layout::Gated { outputs: outputs * 2, inputs };
        if !(outputs * 2).is_multiple_of(32) {
            return Err(
                loader.refusal(&format!("{name}.weight gives {} outputs, no multiple of 32", outputs * 2))
            );
        }
        let weight = loader.matrix(&format!("{name}.weight"), layout, loader.precision())?;
        let device = loader.device().clone();
        let linear = Linear { device, inputs, outputs: outputs * 2, weight, bias: None };
        linear.with_bias(loader, name).map(Self)
    }

    /// `(…, inputs) → (…, outputs)`.
    pub fn forward(&self, x: &Activations) -> Result<Activations> {
        let Linear { device, outputs, weight, bias, .. } = &self.0;
        let dims = self.0.dims(x, outputs / 2)?;
        device.product(x, weight, &Epilogue { bias: bias.as_ref(), ..Epilogue::default() }, &dims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::backend::cpu::cpu;

    #[test]
    fn biases_of_images_must_fit() {
        let device = cpu();
        let loader = Loader::random(1, &device, Precision::F32);
        let linear = Linear::load(&loader, "layer", 32, 32).expect("loads");
        let zeros = |dims: &[usize]| device.upload(&vec![0.0; dims.iter().product()], dims).expect("uploads");
        let x = zeros(&[2, 4, 32]);
        for (dims, fits) in [
            ([1, 32], true),
            ([2, 32], true),
            ([2, 16], false),
            ([2, 64], false),
            ([3, 32], false),
            ([0, 32], false),
        ] {
            let bias = zeros(&dims);
            let epilogue = Epilogue { image_bias: Some(&bias), ..Epilogue::default() };
            assert_eq!(linear.forward_with(&x, &epilogue).is_ok(), fits, "{dims:?}");
        }
    }
}

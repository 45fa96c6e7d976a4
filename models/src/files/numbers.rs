//! A tensor of a file as numbers, whatever type weights have there.

use half::{bf16, f16};

use latentd_kernels::WeightDtype;

use super::Tensors;
use crate::tensor::Tensor;
use crate::{Error, Result};

impl Tensors {
    /// A tensor's numbers as f32, in its sizes; an error if there is none of that name, or it is of a type that weights do not
    /// have. One number alone has one dimension.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let missing = || Error::model(self.path(), format!("missing tensor {name}"));
        let dims = self.shape(name).ok_or_else(missing)?.to_vec();
        let (dtype, bytes) = self.weights(name)?.ok_or_else(missing)?;
        let halves = || bytes.as_chunks::<2>().0.iter();
        let values: Vec<f32> = match dtype {
            WeightDtype::F32 => {
                bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
            }
            WeightDtype::F16 => halves().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect(),
            WeightDtype::Bf16 => halves().map(|bytes| bf16::from_le_bytes(*bytes).to_f32()).collect(),
        };
        self.check_intact()?;
        Tensor::new(values, if dims.is_empty() { vec![1] } else { dims })
    }
}

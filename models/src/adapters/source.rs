//! The numbers of an adapter's file.

use crate::files::{ElementType, Tensors};
use crate::{Error, Result};
use latentd_kernels::Weights;

/// Numbers that are widened at once.
const TOGETHER: usize = 1024;

/// A tensor of the file: its name there, and its shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub name: String,
    pub shape: Vec<usize>,
}

impl Stored {
    /// Its numbers.
    pub(super) fn read(&self, file: &Tensors) -> Result<Vec<f32>> {
        let (dtype, bytes) = file
            .weights(&self.name)?
            .ok_or_else(|| Error::model(file.path(), format!("missing tensor {}", self.name)))?;
        let weights = Weights { dtype, bytes: &bytes };
        if !weights.all_finite() {
            file.check_intact()?;
            let reason = format!("tensor {} holds NaN or infinite weights; use another file", self.name);
            return Err(Error::model(file.path(), reason));
        }
        let mut values = vec![];
        let refused = |_| Error::OutOfMemory { bytes: weights.len() as u64 * 4 };
        values.try_reserve_exact(weights.len()).map_err(refused)?;
        // By pieces that stay in the first cache: no page is filled twice.
        let mut wide = [0.0; TOGETHER];
        for bytes in bytes.chunks(TOGETHER * dtype.size()) {
            let weights = Weights { dtype, bytes };
            let wide = wide.get_mut(..weights.len()).unwrap_or_default();
            weights.widen(wide);
            values.extend_from_slice(wide);
        }
        Ok(values)
    }

    /// Its number, if it is a single whole one: not of a type that weights have.
    pub(super) fn integer(&self, file: &Tensors) -> Result<Option<i64>> {
        let own = file.own_name(&self.name).unwrap_or(&self.name);
        let (dtype, bytes) = (file.dtype(own), file.bytes(own)?.unwrap_or_default());
        Ok(match dtype {
            Some(ElementType::I64) => bytes.first_chunk().map(|bytes| i64::from_le_bytes(*bytes)),
            Some(ElementType::I32) => bytes.first_chunk().map(|bytes| i32::from_le_bytes(*bytes).into()),
            Some(ElementType::I16) => bytes.first_chunk().map(|bytes| i16::from_le_bytes(*bytes).into()),
            Some(ElementType::I8) => bytes.first_chunk().map(|bytes| i8::from_le_bytes(*bytes).into()),
            Some(ElementType::U8 | ElementType::Bool) => bytes.first().map(|byte| (*byte).into()),
            _ => None,
        })
    }

    /// Elements.
    pub(super) fn count(&self) -> usize {
        self.shape.iter().fold(1, |count: usize, size| count.saturating_mul(*size))
    }

    /// The size of a dimension; 1 for those that are not there.
    pub(super) fn size(&self, dimension: usize) -> usize {
        self.shape.get(dimension).copied().unwrap_or(1)
    }

    /// As a matrix: rows, and what all other dimensions make.
    pub(super) fn matrix(&self) -> (usize, usize) {
        let rows = self.size(0);
        (rows, self.count().checked_div(rows).unwrap_or_default())
    }
}

//! Numbers on the host: f32 in the order that files and people have them, `(batch, channels, height, width)` for
//! latents and pictures, `(batch, tokens, width)` for conditioning.
//!
//! Latents, noise, guidance and a sampler's state are of this type on every device; only networks run there.

use std::sync::Arc;

use crate::{Error, Result};

/// An f32 tensor without gaps. A clone shares the numbers until one of both is written to.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    values: Arc<Vec<f32>>,
    dims: Vec<usize>,
}

impl Tensor {
    /// These numbers in these sizes; an error unless there are as many.
    pub fn new(values: Vec<f32>, dims: impl Into<Vec<usize>>) -> Result<Self> {
        let dims = dims.into();
        if count(&dims) != Some(values.len()) {
            return Err(Error::Compute(format!("{} numbers are not {dims:?}", values.len())));
        }
        Ok(Self { values: Arc::new(values), dims })
    }

    /// The same number everywhere.
    pub fn full(value: f32, dims: impl Into<Vec<usize>>) -> Self {
        let dims = dims.into();
        Self { values: Arc::new(vec![value; dims.iter().product()]), dims }
    }

    /// The sizes.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// One size; 1 where there is no such dimension.
    pub fn dim(&self, index: usize) -> usize {
        self.dims.get(index).copied().unwrap_or(1)
    }

    /// `(batch, tokens, width)`.
    pub fn dims3(&self) -> Result<(usize, usize, usize)> {
        match *self.dims {
            [batch, tokens, width] => Ok((batch, tokens, width)),
            _ => Err(Error::Compute(format!("a tensor {:?} is no sequence", self.dims))),
        }
    }

    /// `(batch, channels, height, width)`.
    pub fn dims4(&self) -> Result<(usize, usize, usize, usize)> {
        match *self.dims {
            [batch, channels, height, width] => Ok((batch, channels, height, width)),
            _ => Err(Error::Compute(format!("a tensor {:?} is no picture", self.dims))),
        }
    }

    /// The numbers, the last dimension running fastest.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The numbers, to be changed; copied first where somebody shares them.
    pub fn values_mut(&mut self) -> &mut [f32] {
        Arc::<Vec<f32>>::make_mut(&mut self.values)
    }

    /// The same numbers in other sizes.
    pub fn reshaped(self, dims: impl Into<Vec<usize>>) -> Result<Self> {
        let dims = dims.into();
        if count(&dims) != Some(self.values.len()) {
            return Err(Error::Compute(format!("a tensor {:?} cannot become {dims:?}", self.dims)));
        }
        Ok(Self { dims, ..self })
    }

    /// A function of each number.
    #[must_use]
    pub fn map(&self, f: impl Fn(f32) -> f32) -> Self {
        Self {
            values: Arc::new(self.values.iter().map(|value| f(*value)).collect()),
            dims: self.dims.clone(),
        }
    }

    /// Each number times `factor`, which is rounded to f32 first, plus 0: a −0 becomes 0.
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Self {
        let factor = factor as f32;
        self.map(|value| value * factor + 0.0)
    }

    /// A function of each pair of numbers of two tensors of one shape.
    pub fn zip(&self, other: &Self, f: impl Fn(f32, f32) -> f32) -> Result<Self> {
        if self.dims != other.dims {
            let (a, b) = (&self.dims, &other.dims);
            return Err(Error::Compute(format!("tensors {a:?} and {b:?} have different shapes")));
        }
        let values = self.values.iter().zip(&*other.values).map(|(a, b)| f(*a, *b)).collect();
        Ok(Self { values: Arc::new(values), dims: self.dims.clone() })
    }

    /// The sum.
    pub fn plus(&self, other: &Self) -> Result<Self> {
        self.zip(other, |a, b| a + b)
    }

    /// The difference.
    pub fn minus(&self, other: &Self) -> Result<Self> {
        self.zip(other, |a, b| a - b)
    }

    /// `length` entries of one dimension from `start` on.
    pub fn narrow(&self, dim: usize, start: usize, length: usize) -> Result<Self> {
        let fits =
            self.dims.get(dim).is_some_and(|size| start.checked_add(length).is_some_and(|end| end <= *size));
        if !fits {
            let dims = &self.dims;
            return Err(Error::Compute(format!(
                "a tensor {dims:?} has no {start} + {length} in dimension {dim}"
            )));
        }
        let inner: usize = self.dims.iter().skip(dim + 1).product();
        let row = self.dim(dim) * inner;
        let mut dims = self.dims.clone();
        dims[dim] = length;
        let values = if row == 0 {
            vec![]
        } else {
            let rows = self.values.chunks_exact(row);
            rows.flat_map(|row| &row[start * inner..(start + length) * inner]).copied().collect()
        };
        Ok(Self { values: Arc::new(values), dims })
    }

    /// One entry of the first dimension, which goes.
    pub fn get(&self, index: usize) -> Result<Self> {
        let rest = self.dims.get(1..).unwrap_or_default().to_vec();
        self.narrow(0, index, 1)?.reshaped(rest)
    }

    /// One after the other along a dimension; all other sizes are the same.
    pub fn cat(parts: &[&Self], dim: usize) -> Result<Self> {
        let mut dims = parts.first().map_or(vec![], |part| part.dims.clone());
        let others = |dims: &[usize]| {
            let others = dims.iter().enumerate().filter(|(index, _)| *index != dim);
            others.map(|(_, size)| *size).collect::<Vec<_>>()
        };
        if dim >= dims.len() || parts.iter().any(|part| others(&part.dims) != others(&dims)) {
            let found: Vec<_> = parts.iter().map(|part| &part.dims).collect();
            return Err(Error::Compute(format!("tensors {found:?} cannot be joined along dimension {dim}")));
        }
        dims[dim] = parts.iter().map(|part| part.dims[dim]).sum();
        let inner: usize = dims.iter().skip(dim + 1).product();
        let outer: usize = dims.iter().take(dim).product();
        let mut values = Vec::with_capacity(dims.iter().product());
        for index in 0..outer {
            for part in parts {
                let row = part.dims[dim] * inner;
                values.extend_from_slice(&part.values[index * row..(index + 1) * row]);
            }
        }
        Ok(Self { values: Arc::new(values), dims })
    }

    /// `(batch, channels, height, width)` → `(batch, height, width, channels)`.
    pub fn to_channels_last(&self) -> Result<Self> {
        let (batch, channels, height, width) = self.dims4()?;
        let values = turned(&self.values, batch, channels, height * width);
        Ok(Self { values: Arc::new(values), dims: vec![batch, height, width, channels] })
    }

    /// `(batch, height, width, channels)` → `(batch, channels, height, width)`.
    pub fn to_channels_first(&self) -> Result<Self> {
        let (batch, height, width, channels) = self.dims4()?;
        let values = turned(&self.values, batch, height * width, channels);
        Ok(Self { values: Arc::new(values), dims: vec![batch, channels, height, width] })
    }
}

/// Numbers of these sizes, if that and what any of them come to is a number.
fn count(dims: &[usize]) -> Option<usize> {
    let most = dims.iter().try_fold(1usize, |product, size| product.checked_mul((*size).max(1)))?;
    Some(if dims.contains(&0) { 0 } else { most })
}

/// `(batch, rows, columns)` → `(batch, columns, rows)`.
fn turned(values: &[f32], batch: usize, rows: usize, columns: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for image in values.chunks_exact((rows * columns).max(1)).take(batch) {
        for column in 0..columns {
            out.extend(image.iter().skip(column).step_by(columns));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(dims: &[usize]) -> Tensor {
        let length: usize = dims.iter().product();
        Tensor::new((0..length).map(|value| value as f32).collect(), dims).expect("fits")
    }

    #[test]
    fn parts_and_wholes() {
        let whole = counted(&[2, 3, 4]);
        for dim in 0..3 {
            let size = whole.dim(dim);
            let parts: Vec<Tensor> = (0..size).map(|i| whole.narrow(dim, i, 1).expect("part")).collect();
            let parts: Vec<&Tensor> = parts.iter().collect();
            assert_eq!(Tensor::cat(&parts, dim).expect("joined"), whole, "dimension {dim}");
        }
        assert_eq!(whole.narrow(1, 1, 2).expect("part").values()[..5], [4.0, 5.0, 6.0, 7.0, 8.0]);
        assert_eq!(whole.get(1).expect("part").dims(), [3, 4]);
        assert!(whole.narrow(1, 2, 2).is_err() && whole.narrow(0, usize::MAX, 2).is_err());
        assert!(Tensor::cat(&[&whole, &counted(&[2, 2, 4])], 0).is_err());
        assert!(Tensor::new(vec![0.0; 3], [2, 2]).is_err());
        assert!(Tensor::new(vec![], [0, usize::MAX, 2]).is_err(), "parts of it cannot be reckoned with");
        assert_eq!(
            Tensor::new(vec![], [0, 3]).expect("empty").narrow(1, 1, 2).expect("a part").dims(),
            [0, 2]
        );
    }

    #[test]
    fn channels_change_their_place() {
        let picture = counted(&[2, 3, 2, 2]);
        let last = picture.to_channels_last().expect("a picture");
        assert_eq!(last.dims(), [2, 2, 2, 3]);
        assert_eq!(last.values()[..6], [0.0, 4.0, 8.0, 1.0, 5.0, 9.0]);
        assert_eq!(last.to_channels_first().expect("a picture"), picture);
    }

    #[test]
    fn a_clone_is_its_own_once_it_is_written_to() {
        let first = counted(&[4]);
        let mut second = first.clone();
        second.values_mut()[0] = 9.0;
        assert_eq!((first.values()[0], second.values()[0]), (0.0, 9.0));
        assert_eq!(Tensor::full(-0.0, [1]).scaled(1.0).values()[0].to_bits(), 0, "a zero has no sign");
    }
}

//! What values are, and how their sizes go together.

use std::sync::Arc;

use crate::tensor::Tensor;

/// A value: what a program is given, makes, and hands out.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Numbers.
    Floats(Tensor),
    /// An image.
    Image(Pixels),
}

/// An image whose channels lie side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// 1, 3 or 4.
    pub channels: usize,
    /// Row by row.
    pub pixels: Arc<Vec<u8>>,
}

impl Value {
    /// Its sizes.
    pub fn shape(&self) -> Shape {
        match self {
            Self::Floats(tensor) => Shape { dims: tensor.dims().to_vec(), is_image: false },
            Self::Image(Pixels { width, height, channels, .. }) => {
                Shape { dims: vec![1, *channels, *height, *width], is_image: true }
            }
        }
    }
}

/// Sizes, none of them 0, and whether an image has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// 1 to 8 of them; of images `(1, channels, height, width)`.
    pub dims: Vec<usize>,
    /// Bytes instead of f32.
    pub is_image: bool,
}

/// What is wrong with a program: which operation, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Its number, from 0.
    pub op: usize,
    /// Why.
    pub text: String,
}

/// Dimensions that a value may have.
pub(super) const MOST_DIMS: usize = 8;

impl Shape {
    /// Of numbers.
    pub(super) fn floats(dims: Vec<usize>) -> Result<Self, String> {
        Self { dims, is_image: false }.checked()
    }

    /// Itself, if a value can have it.
    pub(super) fn checked(self) -> Result<Self, String> {
        let Self { dims, is_image } = &self;
        if dims.is_empty() || dims.len() > MOST_DIMS {
            return Err(format!("{} dimensions; 1 to {MOST_DIMS} are possible", dims.len()));
        }
        if dims.contains(&0) {
            return Err(format!("a value {dims:?} has no numbers"));
        }
        let count = dims.iter().try_fold(1usize, |count, size| count.checked_mul(*size));
        match count.filter(|count| *count <= isize::MAX as usize / size_of::<f32>()) {
            None => Err(format!("a value {dims:?} has more numbers than can be counted")),
            Some(_) if *is_image && !matches!(dims[..], [1, 1 | 3 | 4, _, _]) => {
                Err(format!("an image is (1, 1 or 3 or 4, height, width), not {dims:?}"))
            }
            Some(_) => Ok(self),
        }
    }

    /// Numbers in it.
    pub(super) fn count(&self) -> usize {
        self.dims.iter().product()
    }

    /// Bytes of it.
    pub fn bytes(&self) -> u64 {
        self.count() as u64 * if self.is_image { 1 } else { size_of::<f32>() as u64 }
    }
}

/// Numbers from one to the next in each dimension.
pub(super) fn strides(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; dims.len()];
    for index in (1..dims.len()).rev() {
        strides[index - 1] = strides[index] * dims[index];
    }
    strides
}

/// The sizes of both together, as NumPy has it: aligned at the end, 1 stretches.
pub(super) fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, String> {
    let length = a.len().max(b.len());
    let side = |dims: &[usize], index: usize| {
        let missing = length - dims.len();
        index.checked_sub(missing).map_or(1, |index| dims[index])
    };
    let joined = (0..length).map(|index| match (side(a, index), side(b, index)) {
        (a, b) if a == b || b == 1 => Ok(a),
        (1, b) => Ok(b),
        _ => Err(format!("{a:?} and {b:?} do not go together")),
    });
    joined.collect()
}

/// Strides of a value of sizes `own` where it is read as one of sizes `dims`, to which it broadcasts.
pub(super) fn stretched(own: &[usize], dims: &[usize]) -> Vec<usize> {
    let (missing, strides) = (dims.len() - own.len(), strides(own));
    let stride = |index: usize| match index.checked_sub(missing) {
        Some(index) if own[index] != 1 => strides[index],
        _ => 0,
    };
    (0..dims.len()).map(stride).collect()
}

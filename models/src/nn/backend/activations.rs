//! What flows between layers, wherever it is.

use std::any::Any;
use std::sync::Arc;

use super::precision::Precision;
use crate::error::{Result, bail};

/// Numbers on a device in channels-last order, `(batch, height, width, channels)` or `(batch, tokens, channels)`. A
/// clone shares them; nobody changes them.
#[derive(Clone)]
pub struct Activations {
    storage: Arc<dyn Any + Send + Sync>,
    precision: Precision,
    dims: Vec<usize>,
}

impl Activations {
    /// For devices: these sizes of what they keep.
    pub(super) fn new<T: Any + Send + Sync>(
        storage: T,
        precision: Precision,
        dims: impl Into<Vec<usize>>,
    ) -> Self {
        Self { storage: Arc::new(storage), precision, dims: dims.into() }
    }

    /// For devices: what they kept; an error if another device did.
    pub(super) fn storage<T: Any>(&self) -> Result<&T> {
        match self.storage.downcast_ref() {
            Some(storage) => Ok(storage),
            None => bail!("activations {:?} are on another device", self.dims),
        }
    }

    /// The sizes.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// `(batch, tokens, channels)`.
    pub fn dims3(&self) -> Result<(usize, usize, usize)> {
        match *self.dims {
            [batch, tokens, channels] => Ok((batch, tokens, channels)),
            _ => bail!("activations {:?} are no sequences", self.dims),
        }
    }

    /// `(batch, height, width, channels)`.
    pub fn dims4(&self) -> Result<(usize, usize, usize, usize)> {
        match *self.dims {
            [batch, height, width, channels] => Ok((batch, height, width, channels)),
            _ => bail!("activations {:?} are no pictures", self.dims),
        }
    }

    /// The first dimension's size.
    pub fn batch(&self) -> usize {
        self.dims.first().copied().unwrap_or(1)
    }

    /// The last dimension's size.
    pub fn channels(&self) -> usize {
        self.dims.last().copied().unwrap_or(1)
    }

    /// How many vectors of channels there are.
    pub fn rows(&self) -> usize {
        self.dims.split_last().map_or(1, |(_, rest)| rest.iter().product())
    }

    /// How many numbers there are.
    pub fn count(&self) -> usize {
        self.dims.iter().product()
    }

    /// What the numbers are.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The same numbers in other dimensions.
    pub fn reshaped(self, dims: impl Into<Vec<usize>>) -> Result<Self> {
        let dims = dims.into();
        if dims.iter().product::<usize>() != self.count() {
            bail!("activations {:?} cannot become {dims:?}", self.dims);
        }
        Ok(Self { dims, ..self })
    }
}

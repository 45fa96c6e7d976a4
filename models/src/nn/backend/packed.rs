//! What a device made of weights, and of keys and values: opaque to everybody else, shared by clones, never changed.

use std::any::Any;
use std::sync::Arc;

use super::precision::Precision;
use crate::error::{Result, bail};

/// What a matrix of weights is for, which decides how it is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `(outputs, inputs)`.
    Linear {
        /// Outputs.
        outputs: usize,
        /// Inputs.
        inputs: usize,
    },
    /// `(outputs, inputs)` whose second half of outputs are the gates of the first; a multiple of 32.
    Gated {
        /// Outputs, gates included.
        outputs: usize,
        /// Inputs.
        inputs: usize,
    },
    /// `(outputs, inputs, kernel, kernel)`.
    Convolution {
        /// Output channels.
        outputs: usize,
        /// Input channels.
        inputs: usize,
        /// Rows and columns of the kernel.
        kernel: usize,
    },
}

impl Layout {
    /// The shape that a file has it in.
    pub fn shape(self) -> Vec<usize> {
        match self {
            Self::Linear { outputs, inputs } | Self::Gated { outputs, inputs } => vec![outputs, inputs],
            Self::Convolution { outputs, inputs, kernel } => vec![outputs, inputs, kernel, kernel],
        }
    }

    /// Outputs, inputs, and products of each that are added up.
    pub fn sizes(self) -> (usize, usize, usize) {
        match self {
            Self::Linear { outputs, inputs } | Self::Gated { outputs, inputs } => (outputs, inputs, 1),
            Self::Convolution { outputs, inputs, kernel } => (outputs, inputs, kernel * kernel),
        }
    }
}

type Shared = Arc<dyn Any + Send + Sync>;

/// A matrix of weights.
#[derive(Clone)]
pub struct Matrix {
    packed: Shared,
    /// How it lies.
    pub layout: Layout,
    /// What it is multiplied in.
    pub precision: Precision,
    /// Bytes that it takes.
    pub bytes: usize,
}

/// A vector of f32 weights: a bias, or a norm's factors.
#[derive(Clone)]
pub struct Vector {
    packed: Shared,
    /// Numbers.
    pub length: usize,
}

/// Keys and values that many queries can look up.
#[derive(Clone)]
pub struct Keys {
    packed: Shared,
    /// Sequences.
    pub batch: usize,
    /// Keys of each.
    pub count: usize,
    /// Channels of all heads.
    pub channels: usize,
    /// Heads.
    pub heads: usize,
}

impl Matrix {
    pub(super) fn new<T: Any + Send + Sync>(
        packed: T,
        layout: Layout,
        precision: Precision,
        bytes: usize,
    ) -> Self {
        Self { packed: Arc::new(packed), layout, precision, bytes }
    }

    pub(super) fn packed<T: Any>(&self) -> Result<&T> {
        unpacked(&self.packed)
    }

    /// Where it is: equal for those that share one.
    pub fn address(&self) -> usize {
        Arc::as_ptr(&self.packed).addr()
    }
}

impl Vector {
    pub(super) fn new<T: Any + Send + Sync>(packed: T, length: usize) -> Self {
        Self { packed: Arc::new(packed), length }
    }

    pub(super) fn packed<T: Any>(&self) -> Result<&T> {
        unpacked(&self.packed)
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.length * 4
    }

    /// Where it is: equal for those that share one.
    pub fn address(&self) -> usize {
        Arc::as_ptr(&self.packed).addr()
    }
}

impl Keys {
    pub(super) fn new<T: Any + Send + Sync>(
        packed: T,
        batch: usize,
        count: usize,
        channels: usize,
        heads: usize,
    ) -> Self {
        Self { packed: Arc::new(packed), batch, count, channels, heads }
    }

    pub(super) fn packed<T: Any>(&self) -> Result<&T> {
        unpacked(&self.packed)
    }
}

fn unpacked<T: Any>(packed: &Shared) -> Result<&T> {
    match packed.downcast_ref() {
        Some(packed) => Ok(packed),
        None => bail!("weights or keys are on another device"),
    }
}

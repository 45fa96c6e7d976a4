//! What goes into graphs and comes out, and why that fails.

use serde::{Deserialize, Serialize};

/// Numbers with their sizes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Array {
    pub dims: Vec<usize>,
    pub numbers: Numbers,
}

/// Numbers as graphs take and give them. Wider whole numbers are narrowed to 32 bits.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Numbers {
    F32(Vec<f32>),
    I32(Vec<i32>),
    U8(Vec<u8>),
    I8(Vec<i8>),
}

impl Numbers {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::F32(numbers) => numbers.len(),
            Self::I32(numbers) => numbers.len(),
            Self::U8(numbers) => numbers.len(),
            Self::I8(numbers) => numbers.len(),
        }
    }
}

/// Why a graph is not run, or a file is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Failure {
    /// The file is broken, or does what is not known here.
    File(String),
    /// What was given does not fit.
    Input(String),
    /// More than is allowed comes out.
    TooLarge(String),
    /// More memory is needed than there was for it.
    Memory(String),
    /// It was ended: it took too long, or crashed.
    Ended(String),
    /// Nobody wants it any more.
    Cancelled,
}

impl Failure {
    /// What is wrong.
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::File(text)
            | Self::Input(text)
            | Self::TooLarge(text)
            | Self::Memory(text)
            | Self::Ended(text) => text,
            Self::Cancelled => "cancelled at an ONNX graph",
        }
    }
}

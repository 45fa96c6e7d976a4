//! What a format of weight files must tell, so that nobody above it needs to know which one it is.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use super::bytes::FileBytes;
use crate::Result;

/// How a tensor's elements are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum ElementType {
    F32,
    F16,
    Bf16,
    F64,
    F8E4M3,
    F8E5M2,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Q8K,
    /// Another one that its format has.
    Other,
}

impl ElementType {
    /// Its name in lower case: "f16", "bf16", "f8_e4m3", "q8_0".
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::F64 => "f64",
            Self::F8E4M3 => "f8_e4m3",
            Self::F8E5M2 => "f8_e5m2",
            Self::I64 => "i64",
            Self::I32 => "i32",
            Self::I16 => "i16",
            Self::I8 => "i8",
            Self::U8 => "u8",
            Self::Bool => "bool",
            Self::Q4_0 => "q4_0",
            Self::Q4_1 => "q4_1",
            Self::Q5_0 => "q5_0",
            Self::Q5_1 => "q5_1",
            Self::Q8_0 => "q8_0",
            Self::Q2K => "q2_k",
            Self::Q3K => "q3_k",
            Self::Q4K => "q4_k",
            Self::Q5K => "q5_k",
            Self::Q6K => "q6_k",
            Self::Q8K => "q8_k",
            Self::Other => "other",
        }
    }

    /// Elements that are stored together and the bytes they take: what shapes and sizes are held against. `None` where
    /// only the format knows.
    pub(super) fn block(self) -> Option<(usize, usize)> {
        Some(match self {
            Self::F8E4M3 | Self::F8E5M2 | Self::I8 | Self::U8 | Self::Bool => (1, 1),
            Self::F16 | Self::Bf16 | Self::I16 => (1, 2),
            Self::F32 | Self::I32 => (1, 4),
            Self::F64 | Self::I64 => (1, 8),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q8_0 => (32, 34),
            Self::Q2K => (256, 84),
            Self::Q3K => (256, 110),
            Self::Q4K => (256, 144),
            Self::Q5K => (256, 176),
            Self::Q6K => (256, 210),
            Self::Q8K => (256, 292),
            Self::Other => return None,
        })
    }

    /// Whether a block has several elements, which share a scale.
    pub(super) fn is_quantised(self) -> bool {
        self.block().is_some_and(|(elements, _)| elements > 1)
    }
}

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub shape: Vec<usize>,
    pub dtype: ElementType,
    /// Where the container finds it.
    pub place: usize,
}

/// An open weight file, its header read and checked against its size.
pub(super) trait Container: Send + Sync {
    /// The file, or the name that stands for one.
    fn path(&self) -> &Path;

    /// How its format is called, for a sentence: "safetensors", "GGUF".
    fn format(&self) -> &'static str;

    /// What the file says of itself.
    fn metadata(&self) -> &BTreeMap<String, String>;

    /// A tensor's elements as they are stored, little-endian, row-major; an error if they cannot be had.
    fn read(&self, place: usize) -> Result<Cow<'_, [u8]>>;

    /// Where the elements lie one behind the other as [`Self::read`] gives them, if they do.
    fn lying(&self, place: usize) -> Option<(&FileBytes, Range<usize>)>;

    /// A tensor will not be needed again soon: only what was made of it should take memory.
    fn let_go(&self, place: usize);

    /// An error if anything read so far was no longer there.
    fn check(&self) -> Result<()>;
}

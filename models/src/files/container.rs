//! What a format of weight files must tell, so that nobody above it needs to know which one it is.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

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
    /// Another one that its format has.
    Other,
}

impl ElementType {
    /// Its name in lower case: "f16", "bf16", "f8_e4m3".
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
            Self::Other => "other",
        }
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

    /// What the file says of itself.
    fn metadata(&self) -> &BTreeMap<String, String>;

    /// The bytes that say what is in the file: equal for files with the same tensors in the same places.
    fn header(&self) -> &[u8];

    /// A tensor's elements, little-endian, row-major; `None` if its place lies outside the file.
    fn bytes(&self, place: usize) -> Option<Cow<'_, [u8]>>;

    /// A tensor will not be needed again soon: only what was made of it should take memory.
    fn let_go(&self, place: usize);

    /// An error if anything read so far was no longer there.
    fn check(&self) -> Result<()>;
}

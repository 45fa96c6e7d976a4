//! One view over every format of weight files.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;

use latentd_kernels::WeightDtype;

use super::container::{Container, ElementType, Entry};
use crate::{Error, Result};

/// An open weight file: names, shapes and types of its tensors, their elements on demand, and its metadata. Nothing is
/// read of a tensor until it is asked for.
pub struct Tensors {
    container: Box<dyn Container>,
    entries: BTreeMap<String, Entry>,
    /// Prefixes as files have them and as they are asked for.
    renamed: Option<(String, String)>,
}

/// A tensor as its file has it.
pub struct StoredTensor<'a> {
    /// Its name, without the prefix that was asked for.
    pub name: &'a str,
    /// What its elements are.
    pub dtype: ElementType,
    /// Its sizes.
    pub shape: &'a [usize],
    /// Its elements, little-endian, row-major.
    pub bytes: Cow<'a, [u8]>,
}

impl Tensors {
    pub(super) fn new(container: Box<dyn Container>, entries: BTreeMap<String, Entry>) -> Self {
        Self { container, entries, renamed: None }
    }

    /// The same file, whose names that begin with `own` are asked for as if they began with `canonical`.
    #[must_use]
    pub(crate) fn renamed(self, own: &str, canonical: &str) -> Self {
        Self { renamed: Some((own.to_owned(), canonical.to_owned())), ..self }
    }

    /// The file, or the name that was given to its bytes.
    pub fn path(&self) -> &Path {
        self.container.path()
    }

    /// What the file says of itself.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        self.container.metadata()
    }

    /// The bytes that say what is in the file: equal for files with the same tensors in the same places.
    pub fn header(&self) -> &[u8] {
        self.container.header()
    }

    /// An error if the file was cut off by someone else while its tensors were read: to be asked after the last.
    pub fn check_intact(&self) -> Result<()> {
        self.container.check()
    }

    /// Names of all tensors as the file has them, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// What the file calls the tensor that is asked for by this name, if it has it.
    pub fn own_name(&self, name: &str) -> Option<&str> {
        if let Some((own, canonical)) = &self.renamed
            && let Some(rest) = name.strip_prefix(canonical.as_str())
        {
            return self.entries.get_key_value(&format!("{own}{rest}")).map(|(name, _)| name.as_str());
        }
        self.entries.get_key_value(name).map(|(name, _)| name.as_str())
    }

    /// Whether any tensor's name begins so.
    pub fn has_under(&self, prefix: &str) -> bool {
        let renamed = self.renamed.as_ref().and_then(|(own, canonical)| {
            prefix.strip_prefix(canonical.as_str()).map(|rest| format!("{own}{rest}"))
        });
        let prefix = renamed.as_deref().unwrap_or(prefix);
        let from = (Bound::Included(prefix), Bound::Unbounded);
        self.entries.range::<str, _>(from).next().is_some_and(|(name, _)| name.starts_with(prefix))
    }

    /// The shape of a tensor, if there is one of that name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entry(name).map(|entry| entry.shape.as_slice())
    }

    /// The element type of a tensor.
    pub fn dtype(&self, name: &str) -> Option<ElementType> {
        self.entry(name).map(|entry| entry.dtype)
    }

    /// A tensor's elements as they are stored, whatever their type.
    pub fn bytes(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        self.container.bytes(self.entry(name)?.place)
    }

    /// All tensors whose names in the file begin with `prefix`, sorted by name.
    pub fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = StoredTensor<'a>> {
        let entries = self.entries.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        entries.map_while(move |(name, entry)| {
            let name = name.strip_prefix(prefix)?;
            let bytes = self.container.bytes(entry.place)?;
            Some(StoredTensor { name, dtype: entry.dtype, shape: &entry.shape, bytes })
        })
    }

    /// The type that a tensor's elements have as weights; an error if it is not one that weights have.
    pub fn weight_dtype(&self, name: &str) -> Result<WeightDtype> {
        match self.dtype(name) {
            Some(ElementType::F32) => Ok(WeightDtype::F32),
            Some(ElementType::F16) => Ok(WeightDtype::F16),
            Some(ElementType::Bf16) => Ok(WeightDtype::Bf16),
            Some(other) => {
                let name_of_type = other.name().to_uppercase();
                let reason = format!(
                    "tensor {name} is of type {name_of_type}; f32, f16 and bf16 are supported: use a version of the file \
                     in one of them"
                );
                Err(Error::model(self.path(), reason))
            }
            None => Err(Error::model(self.path(), format!("missing tensor {name}"))),
        }
    }

    /// A tensor's elements as weights, if there is one of that name; an error if its type is not one that weights have.
    pub fn weights(&self, name: &str) -> Result<Option<(WeightDtype, Cow<'_, [u8]>)>> {
        let Some(entry) = self.entry(name) else {
            return Ok(None);
        };
        let dtype = self.weight_dtype(name)?;
        let outside = || Error::file(self.path(), format!("tensor {name} lies outside the file"));
        let bytes = self.container.bytes(entry.place).ok_or_else(outside)?;
        Ok(Some((dtype, bytes)))
    }

    /// A tensor's elements will not be needed again soon: only what was made of them should take memory.
    pub(crate) fn let_go(&self, name: &str) {
        if let Some(entry) = self.entry(name) {
            self.container.let_go(entry.place);
        }
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.get(self.own_name(name)?)
    }
}

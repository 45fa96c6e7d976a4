//! One view over every format of weight files.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::Path;

use latentd_kernels::WeightDtype;

use super::allocate::Unwidened;
use super::bytes::FileBytes;
use super::container::{Container, ElementType, Entry};
use super::elements::{Elements, Source};
use super::layout_names::Layout;
use super::widen::{self, Scale};
use crate::{Error, Result};

/// Bytes from which parts of a tensor are read from the file: a page that is touched brings as many.
const WORTH_READING: usize = 64 << 10;

/// An open weight file: names, shapes and types of its tensors, their elements on demand, and its metadata. Nothing is
/// read of a tensor until it is asked for.
pub struct Tensors {
    container: Box<dyn Container>,
    /// By the file's own names.
    entries: BTreeMap<String, Entry>,
    /// From the names that are asked for to the file's own, where those are others.
    own_names: BTreeMap<String, String>,
    /// What 8-bit weights are multiplied by, by the file's name of the weight.
    scales: BTreeMap<String, Entry>,
    /// After whose manner the file names its tensors, if it holds a network of Stable Diffusion.
    layout: Option<Layout>,
}

/// What a view is made of, to be put together with others.
pub(super) struct Pieces {
    pub container: Box<dyn Container>,
    /// By the file's own names.
    pub entries: BTreeMap<String, Entry>,
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
    /// What they are multiplied by, if there is anything.
    pub scale: Option<StoredScale<'a>>,
}

/// What 8-bit weights are multiplied by, as the file has it.
pub struct StoredScale<'a> {
    /// What its elements are.
    pub dtype: ElementType,
    /// Its sizes.
    pub shape: &'a [usize],
    /// Its elements, little-endian.
    pub bytes: Cow<'a, [u8]>,
}

impl Tensors {
    pub(super) fn new(container: Box<dyn Container>, mut entries: BTreeMap<String, Entry>) -> Self {
        widen::take_mark(&mut entries);
        Self::of_pieces(Pieces { container, entries })
    }

    pub(super) fn of_pieces(Pieces { container, entries }: Pieces) -> Self {
        Self { container, entries, own_names: BTreeMap::new(), scales: BTreeMap::new(), layout: None }
    }

    /// The same whose scales belong to their weights and are no tensors any more: once all files of a model are there, as
    /// a weight and its scale may be in two.
    pub(super) fn with_scales(mut self) -> Self {
        self.scales = widen::take_scales(&mut self.entries);
        self
    }

    /// What it is made of; names it was given are gone.
    pub(super) fn into_pieces(self) -> Pieces {
        Pieces { container: self.container, entries: self.entries }
    }

    /// The same file, some of whose tensors are asked for by other names: pairs of the name that is asked for and the
    /// file's own. The others keep theirs.
    #[must_use]
    pub(crate) fn renamed(mut self, names: impl IntoIterator<Item = (String, String)>) -> Self {
        self.own_names.extend(names);
        self
    }

    /// The same; an error if two tensors would have one name, of which one would not be seen any more.
    pub(super) fn renamed_apart(self, names: Vec<(String, String)>) -> Result<Self> {
        let twice = |asked: &str, first: &str, second: &str| {
            let reason = format!("tensors {first} and {second} are both {asked}; one of them must go");
            Error::model(self.path(), reason)
        };
        let others: BTreeSet<&str> = names.iter().map(|(_, own)| own.as_str()).collect();
        let mut own_names = BTreeMap::<&str, &str>::new();
        for (asked, own) in &names {
            let kept = self.entries.contains_key(asked) && !others.contains(asked.as_str());
            let first = if kept { Some(asked.as_str()) } else { own_names.insert(asked, own) };
            if let Some(first) = first {
                return Err(twice(asked, first, own));
            }
        }
        Ok(self.renamed(names))
    }

    pub(super) fn with_layout(self, layout: Option<Layout>) -> Self {
        Self { layout, ..self }
    }

    /// After whose manner the file names its tensors, if it holds a network of Stable Diffusion.
    pub fn layout(&self) -> Option<Layout> {
        self.layout
    }

    /// The same, for all names that begin with `own`, which are asked for as if they began with `canonical`.
    #[must_use]
    pub(crate) fn with_prefix(self, own: &str, canonical: &str) -> Self {
        let names = self.entries.keys().filter_map(|name| {
            let rest = name.strip_prefix(own)?;
            Some((format!("{canonical}{rest}"), name.clone()))
        });
        let names: Vec<_> = names.collect();
        self.renamed(names)
    }

    /// The file, or the name that was given to its bytes.
    pub fn path(&self) -> &Path {
        self.container.path()
    }

    /// How its format is called, for a sentence: "safetensors", "GGUF".
    pub fn format(&self) -> &'static str {
        self.container.format()
    }

    /// What the file says of itself.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        self.container.metadata()
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
        let own = self.own_names.get(name).map_or(name, String::as_str);
        self.entries.get_key_value(own).map(|(name, _)| name.as_str())
    }

    /// Whether any tensor's name begins so.
    pub fn has_under(&self, prefix: &str) -> bool {
        under(&self.entries, prefix).next().is_some() || under(&self.own_names, prefix).next().is_some()
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
    pub fn bytes(&self, name: &str) -> Result<Option<Cow<'_, [u8]>>> {
        self.entry(name).map(|entry| self.container.read(entry.place)).transpose()
    }

    /// The names that begin with `prefix` by which tensors are asked for, and the file's own; sorted. Each tensor has one.
    pub(crate) fn names_under<'a>(&'a self, prefix: &'a str) -> Vec<(&'a str, &'a str)> {
        let others: BTreeSet<&str> = self.own_names.values().map(String::as_str).collect();
        let renamed = under(&self.own_names, prefix).map(|(name, own)| (name, own.as_str()));
        let own = under(&self.entries, prefix).map(|(name, _)| (name, name));
        let own = own.filter(|(name, _)| !self.own_names.contains_key(*name) && !others.contains(name));
        let mut names: Vec<_> = renamed.chain(own).collect();
        names.sort_unstable();
        names
    }

    /// All tensors that are asked for by names that begin with `prefix`, sorted by those.
    pub fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = Result<StoredTensor<'a>>> {
        self.names_under(prefix).into_iter().filter_map(move |(asked, own)| {
            let entry = self.entries.get(own)?;
            Some(self.stored(asked.strip_prefix(prefix)?, own, entry))
        })
    }

    fn stored<'a>(&'a self, name: &'a str, own: &str, entry: &'a Entry) -> Result<StoredTensor<'a>> {
        let bytes = self.container.read(entry.place)?;
        let scale = match self.scales.get(own) {
            Some(Entry { shape, dtype, place }) => {
                Some(StoredScale { dtype: *dtype, shape, bytes: self.container.read(*place)? })
            }
            None => None,
        };
        Ok(StoredTensor { name, dtype: entry.dtype, shape: &entry.shape, bytes, scale })
    }

    /// The type that a tensor's elements have as weights; an error if it is not one that weights have.
    pub fn weight_dtype(&self, name: &str) -> Result<WeightDtype> {
        let Some(own) = self.own_name(name) else {
            return Err(Error::model(self.path(), format!("missing tensor {name}")));
        };
        let dtype = self.dtype(own).unwrap_or(ElementType::Other);
        widen::weight_dtype(dtype, self.scales.contains_key(own)).ok_or_else(|| {
            let name_of_type = dtype.name().to_uppercase();
            let reason = format!(
                "tensor {name} is of type {name_of_type}, which weights are not: {} are; use a version of the file in one \
                 of them",
                widen::NAMES
            );
            Error::model(self.path(), reason)
        })
    }

    /// A tensor's elements as weights, if there is one of that name; an error if its type is not one that weights have.
    pub fn weights(&self, name: &str) -> Result<Option<(WeightDtype, Cow<'_, [u8]>)>> {
        let Some(own) = self.own_name(name) else {
            return Ok(None);
        };
        let Some(entry) = self.entries.get(own) else {
            return Ok(None);
        };
        let dtype = self.weight_dtype(name)?;
        let bytes = self.container.read(entry.place)?;
        let scale = match self.scales.get(own) {
            Some(scale) => Some(Scale { bytes: self.container.read(scale.place)?, entry: scale }),
            None => None,
        };
        let widened = widen::widen(bytes, entry, scale.as_ref()).map_err(|unwidened| match unwidened {
            Unwidened::Wrong(reason) => Error::model(self.path(), format!("tensor {name} {reason}")),
            Unwidened::Memory(error) => error,
        })?;
        Ok(Some((dtype, widened)))
    }

    /// The same, to be read in parts.
    pub(crate) fn elements(&self, name: &str) -> Result<Option<Elements<'_>>> {
        let lying = self.entry(name).and_then(|entry| {
            let is_plain = matches!(entry.dtype, ElementType::F32 | ElementType::F16 | ElementType::Bf16);
            let lying = if is_plain { self.container.lying(entry.place) } else { None };
            lying.filter(|(_, place)| place.len() > WORTH_READING)
        });
        if let Some((FileBytes::Mapped(file), place)) = lying {
            let source = Source::File(file, place.start);
            return Ok(Some(Elements { dtype: self.weight_dtype(name)?, source }));
        }
        let weights = self.weights(name)?;
        Ok(weights.map(|(dtype, bytes)| Elements { dtype, source: Source::Bytes(bytes) }))
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

/// The entries whose names begin with `prefix`.
fn under<'a, T>(entries: &'a BTreeMap<String, T>, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a T)> {
    let from = entries.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
    let from = from.map(|(name, entry)| (name.as_str(), entry));
    from.take_while(move |(name, _)| name.starts_with(prefix))
}

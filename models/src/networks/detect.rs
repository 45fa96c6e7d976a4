//! Reading a network's configuration from the names and shapes of its tensors.

use crate::files::{Tensors, would_be};
use crate::{Error, Result};

/// Wider than any layer, and small enough to reckon with: a tensor without elements can claim any size.
const WIDEST: usize = 1 << 24;

/// A dimension of a tensor that a configuration is read from, at least 1.
pub(super) fn dim(file: &Tensors, name: &str, index: usize) -> Result<usize> {
    let missing = || {
        let named = would_be(file, name).map_or_else(|| name.to_owned(), |own| format!("{own} ({name})"));
        Error::model(file.path(), format!("missing tensor {named}"))
    };
    let shape = file.shape(name).ok_or_else(missing)?;
    let own = file.own_name(name).unwrap_or(name);
    let wrong = || Error::model(file.path(), format!("tensor {own} has the unexpected shape {shape:?}"));
    shape.get(index).copied().filter(|size| (1..=WIDEST).contains(size)).ok_or_else(wrong)
}

/// More blocks or layers than any network has; a file cannot make us count for ever.
pub(super) const MOST_IN_A_ROW: usize = 256;

/// How many of `prefix(0)`, `prefix(1)`, … begin the name of a tensor in a row. Any tensor of a block tells that
/// the block is there, so that one that is missing is named, and not taken for the end.
pub(super) fn count(file: &Tensors, prefix: impl Fn(usize) -> String) -> usize {
    (0..MOST_IN_A_ROW).take_while(|index| file.has_under(&prefix(*index))).count()
}

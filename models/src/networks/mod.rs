//! The networks, one file each, with the configuration that is read from a checkpoint's tensors.

pub mod clip;
pub mod unet;
pub mod vae;

use crate::files::SafeTensors;
use crate::{Error, Result};

/// A dimension of a tensor that a configuration is read from.
pub(crate) fn dim(file: &SafeTensors, name: &str, index: usize) -> Result<usize> {
    let shape =
        file.shape(name).ok_or_else(|| Error::model(file.path(), format!("missing tensor {name}")))?;
    let wrong = || Error::model(file.path(), format!("tensor {name} has the unexpected shape {shape:?}"));
    shape.get(index).copied().filter(|size| *size > 0).ok_or_else(wrong)
}

/// More blocks or layers than any network has; a file cannot make us count for ever.
const MOST_IN_A_ROW: usize = 10_000;

/// How many of `name(0)`, `name(1)`, … a file has in a row.
pub(crate) fn count(file: &SafeTensors, name: impl Fn(usize) -> String) -> usize {
    (0..MOST_IN_A_ROW).take_while(|index| file.shape(&name(*index)).is_some()).count()
}

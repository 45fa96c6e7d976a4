//! Networks that stand alone in a file and are run by names: what one takes and gives, and running it.
//!
//! A kind of them implements [`Found`] and [`Standalone`], and has one row in [`super::known`].

use std::sync::Arc;

use crate::error::{Result, bail};
use crate::files::Tensors;
use crate::nn::{Device, Patch, Precision, Run};
use crate::tensor::Tensor;

/// One side of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Always so many.
    Fixed(usize),
    /// Any, but the same wherever the name stands.
    Free(&'static str),
    /// So many times what a name stands for.
    Times(usize, &'static str),
}

/// A tensor that goes in or comes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: &'static str,
    /// Its sizes.
    pub sides: Vec<Side>,
    /// What its numbers are, for people.
    pub about: &'static str,
}

/// A part of a network that can be run by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name; empty: the whole.
    pub name: &'static str,
    /// What goes in.
    pub inputs: Vec<Port>,
    /// What comes out, in order.
    pub outputs: Vec<Port>,
}

/// What a file's network is, told without its weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// What it is, such as "taesd".
    pub kind: &'static str,
    /// Its parts.
    pub entries: Vec<Entry>,
}

impl Described {
    /// A part by its name; an error names those that there are.
    pub fn entry(&self, name: &str) -> Result<&Entry> {
        let Some(entry) = self.entries.iter().find(|entry| entry.name == name) else {
            let names: Vec<_> = self.entries.iter().map(|entry| format!("'{}'", entry.name)).collect();
            bail!("{} has no part '{name}'; it has {}", self.kind, names.join(", "));
        };
        Ok(entry)
    }
}

impl Entry {
    /// What is given by names, in the order of its inputs; an error if one is missing, unknown, or of other sizes.
    pub fn in_order<T>(
        &self,
        mut given: Vec<(String, T)>,
        dims: impl Fn(&T) -> Vec<usize>,
    ) -> Result<Vec<T>> {
        let (mut ordered, mut known) = (vec![], vec![]);
        for port in &self.inputs {
            let Some(place) = given.iter().position(|(name, _)| name == port.name) else {
                bail!("its input '{}' is missing", port.name);
            };
            let (_, one) = given.swap_remove(place);
            port.check(&dims(&one), &mut known)?;
            ordered.push(one);
        }
        if let Some((name, _)) = given.first() {
            let names: Vec<_> = self.inputs.iter().map(|port| port.name).collect();
            bail!("it has no other input '{name}'; it has {}", names.join(", "));
        }
        Ok(ordered)
    }
}

impl Port {
    /// Whether sizes fit; `known` is what names stand for so far.
    fn check(&self, dims: &[usize], known: &mut Vec<(&'static str, usize)>) -> Result<()> {
        let mut fits = |(side, size): (&Side, &usize)| match side {
            Side::Fixed(wanted) => wanted == size,
            Side::Times(times, name) => {
                known.iter().any(|(own, value)| own == name && value.checked_mul(*times) == Some(*size))
            }
            Side::Free(name) => {
                let value = known.iter().find(|(own, _)| own == name).map(|(_, value)| *value);
                if value.is_none() {
                    known.push((name, *size));
                }
                value.unwrap_or(*size) == *size && *size > 0
            }
        };
        if dims.len() == self.sides.len() && self.sides.iter().zip(dims).all(&mut fits) {
            return Ok(());
        }
        let sides: Vec<_> = self.sides.iter().map(Side::to_string).collect();
        bail!("input '{}': sizes {dims:?}, it takes [{}]", self.name, sides.join(", "));
    }
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(size) => write!(f, "{size}"),
            Self::Free(name) => f.write_str(name),
            Self::Times(times, name) => write!(f, "{times} {name}"),
        }
    }
}

/// Looks for a network of one kind in a file. Tensors' names and shapes tell. An error if it is of this kind by the names, but a
/// tensor is missing, too much or of another shape.
pub type Find = fn(&Tensors) -> Option<Result<Arc<dyn Found>>>;

/// A file's network before it is read.
pub trait Found: Send + Sync {
    /// What it is.
    fn described(&self) -> &Described;

    /// Bytes that its weights take in memory, at most; `None` where the file's size tells.
    fn weight_bytes(&self) -> Option<u64> {
        None
    }

    /// Bytes that running a part takes with inputs of these sizes, in the part's order.
    fn activation_bytes(&self, entry: &Entry, inputs: &[Vec<usize>]) -> u64;

    /// Looks at all numbers of its weights, which takes as long as reading the file. Kinds that may take long leave it to
    /// [`Self::open`], where those that are not finite are refused all the same.
    ///
    /// # Errors
    /// A tensor has numbers that are not finite.
    fn check(&self, _file: &Tensors) -> Result<()> {
        Ok(())
    }

    /// Whether its file says by what its weights differ from those of a checkpoint's UNet: it is opened of what [`Self::over`]
    /// makes of both.
    fn is_over_base(&self) -> bool {
        false
    }

    /// The whole weights of such a file over those of a checkpoint's, as patches leave them, each made as it is asked for.
    ///
    /// # Errors
    /// The checkpoint's UNet is none that they can be added to.
    fn over(&self, _file: Tensors, _base: Tensors, _patches: &[Arc<dyn Patch>]) -> Result<Tensors> {
        bail!("{} is not built over the UNet of a pass", self.described().kind)
    }

    /// Bytes that making such weights takes, beside the weights.
    fn making_bytes(&self) -> u64 {
        0
    }

    /// Reads it from the same file.
    ///
    /// # Errors
    /// The file's tensors are not those of the network.
    fn open(&self, file: &Tensors, device: &Device, precision: Precision) -> Result<Arc<dyn Standalone>>;
}

/// A network that stands alone, ready to run.
pub trait Standalone: Send + Sync {
    /// Runs a part with its inputs in its order, their sizes checked; what comes out, in its order.
    ///
    /// # Errors
    /// [`crate::Error::Cancelled`], or those of the device.
    fn run(&self, entry: &Entry, inputs: &[Tensor], run: &Run) -> Result<Vec<Tensor>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_told_by_name_and_their_sizes_belong_together() {
        let port = |name, sides: &[Side]| Port { name, sides: sides.to_vec(), about: "" };
        let entry = Entry {
            name: "",
            inputs: vec![
                port("x", &[Side::Free("batch"), Side::Fixed(4), Side::Free("height")]),
                port("hint", &[Side::Free("batch"), Side::Times(8, "height")]),
            ],
            outputs: vec![],
        };
        let order = |given: &[(&str, &[usize])]| {
            let given = given.iter().map(|(name, dims)| ((*name).to_owned(), dims.to_vec())).collect();
            entry.in_order(given, Vec::clone).map_err(|error| error.to_string())
        };
        let (x, hint): (&[usize], &[usize]) = (&[2, 4, 5], &[2, 40]);
        assert_eq!(order(&[("hint", hint), ("x", x)]), Ok(vec![x.to_vec(), hint.to_vec()]));
        for (given, expected) in [
            (vec![("x", x)], "its input 'hint' is missing"),
            (vec![("x", x), ("hint", hint), ("y", x)], "no other input 'y'; it has x, hint"),
            (vec![("x", x), ("hint", &[2, 41])], "input 'hint': sizes [2, 41], it takes [batch, 8 height]"),
            (vec![("x", x), ("hint", &[3, 40])], "input 'hint'"),
            (vec![("x", &[2, 4]), ("hint", hint)], "input 'x': sizes [2, 4], it takes [batch, 4, height]"),
            (vec![("x", &[0, 4, 5]), ("hint", hint)], "input 'x'"),
        ] {
            let error = order(&given).expect_err(expected);
            assert!(error.contains(expected), "{error}");
        }
    }
}

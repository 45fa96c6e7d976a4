//! What attentions of one evaluation leave for later ones: the tokens that keys and values were made of, or the attention that each
//! key received.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::unet_sites::SitePart;
use crate::tensor::Tensor;

/// Where in a network: an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BankPlace {
    /// Which part.
    pub part: SitePart,
    /// Which block of it.
    pub index: usize,
    /// Which layer of its transformer.
    pub layer: usize,
    /// Whether it is the attention of a picture's places to each other.
    pub is_self: bool,
}

/// Tensors by the place where they were kept, and the picture that they are of.
#[derive(Debug, Default)]
pub struct Bank(Mutex<BTreeMap<(BankPlace, usize), Tensor>>);

impl Bank {
    /// Keeps something, in the place of what was there.
    pub(super) fn keep(&self, place: BankPlace, picture: usize, tensor: Tensor) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert((place, picture), tensor);
    }

    /// What was kept last of a picture; of another one, if nothing of it was.
    pub(super) fn get(&self, place: BankPlace, picture: usize) -> Option<Tensor> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_any = || kept.range((place, 0)..=(place, usize::MAX)).next().map(|(_, tensor)| tensor);
        kept.get(&(place, picture)).or_else(of_any).cloned()
    }

    /// All that is kept, in the order of places, with the pictures that it is of.
    pub fn all(&self) -> Vec<(BankPlace, usize, Tensor)> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().map(|((place, picture), tensor)| (*place, *picture, tensor.clone())).collect()
    }
}

//! What an instance or a plan of a plugin knows by numbers, beside tensors and images: library files, and what is opened.

use std::collections::BTreeMap;
use std::sync::Arc;

use latentd_models::model::ModelShape;
use latentd_models::networks::known::KnownNetwork;
use latentd_models::networks::standalone::Standalone;

use crate::library::Pinned;
use crate::onnx::Graph;

/// Files that one plugin may know of at once: each is held open.
const MOST_FILES: usize = 1024;
/// Networks that one instance may have open at once.
const MOST_NETS: usize = 256;

/// What was opened.
#[derive(Clone)]
pub(super) enum Net {
    Graph(Arc<Graph>),
    Network(Running),
}

/// A network and what is known of it.
#[derive(Clone)]
pub(super) struct Running {
    pub known: KnownNetwork,
    pub network: Arc<dyn Standalone>,
    /// The model over whose UNet it is built, if over any.
    pub base: Option<Arc<ModelShape>>,
}

/// The files of a plan, which its instances know by the same numbers, and those that an instance found.
#[derive(Clone, Default)]
pub(super) struct Opened {
    /// By their numbers, from 1 on.
    files: Vec<Arc<Pinned>>,
    /// Width, height and channels of the pictures that a plan is told of, by their handles, from 1 on.
    pictures: Vec<[usize; 3]>,
    nets: BTreeMap<u64, Net>,
    /// How many were opened so far.
    numbered: u64,
}

impl Opened {
    /// Of what parameters name.
    pub(super) fn new(files: Vec<Arc<Pinned>>, pictures: Vec<[usize; 3]>) -> Self {
        Self { files, pictures, ..Self::default() }
    }

    /// Without the pictures, which instances have themselves.
    pub(super) fn for_instance(&self) -> Self {
        Self { files: self.files.clone(), ..Self::default() }
    }

    /// The size of a picture that a plan is told of.
    pub(super) fn picture(&self, handle: u64) -> Option<[usize; 3]> {
        let place = usize::try_from(handle).ok()?.checked_sub(1)?;
        self.pictures.get(place).copied()
    }

    /// A file by its number.
    pub(super) fn file(&self, number: u64) -> Option<&Arc<Pinned>> {
        self.files.get(usize::try_from(number).ok()?.checked_sub(1)?)
    }

    /// What was opened, by its number.
    pub(super) fn net(&self, number: u64) -> Option<&Net> {
        self.nets.get(&number)
    }

    /// Opens something; its number. `None` if too much is open.
    pub(super) fn open(&mut self, net: Net) -> Option<u64> {
        if self.nets.len() >= MOST_NETS {
            return None;
        }
        self.numbered += 1;
        self.nets.insert(self.numbered, net);
        Some(self.numbered)
    }

    /// Whether it was open.
    pub(super) fn close(&mut self, number: u64) -> bool {
        self.nets.remove(&number).is_some()
    }

    /// The number of a file: the one it has, or a new one. `None` if it knows too many.
    pub(super) fn number(&mut self, file: &Arc<Pinned>) -> Option<u64> {
        let known = self.files.iter().position(|known| Arc::ptr_eq(known, file));
        if known.is_none() && self.files.len() >= MOST_FILES {
            return None;
        }
        Some(
            known.unwrap_or_else(|| {
                self.files.push(Arc::clone(file));
                self.files.len() - 1
            }) as u64
                + 1,
        )
    }
}

//! The networks that stand alone in a file and are known here, told by what is in the file.

use std::sync::Arc;

use super::standalone::{Described, Entry, Find, Found, Standalone};
use super::{controlnet, ip_adapter, restorers, taesd, unet_alone, upscalers};
use crate::error::Result;
use crate::files::Tensors;
use crate::nn::{Device, Patch, Precision};

/// All of them. The first that takes a file has it.
const KINDS: [Find; 15] = [
    taesd::find,
    // Before the checkpoint that the oldest files have beside it.
    controlnet::find_controlnet,
    controlnet::find_adapter,
    ip_adapter::find_adapter,
    ip_adapter::find_vision,
    unet_alone::find,
    upscalers::find_rrdbnet,
    upscalers::find_compact,
    upscalers::find_span,
    upscalers::find_swinir,
    upscalers::find_dat,
    restorers::find_gfpgan,
    restorers::find_codeformer,
    restorers::find_retinaface,
    restorers::find_parsenet,
];

/// A file's network.
#[derive(Clone)]
pub struct KnownNetwork(Arc<dyn Found>);

impl KnownNetwork {
    /// That of a file, if there is one that is known.
    ///
    /// # Errors
    /// It is one by the names of its tensors, but not whole.
    pub fn of(file: &Tensors) -> Result<Option<Self>> {
        KINDS.iter().find_map(|find| find(file)).map(|found| found.map(Self)).transpose()
    }

    /// What it is.
    pub fn described(&self) -> &Described {
        self.0.described()
    }

    /// Bytes that its weights take in memory, at most; `None` where the file's size tells.
    pub fn weight_bytes(&self) -> Option<u64> {
        self.0.weight_bytes()
    }

    /// Bytes that running a part takes with inputs of these sizes, in the part's order.
    pub fn activation_bytes(&self, entry: &Entry, inputs: &[Vec<usize>]) -> u64 {
        self.0.activation_bytes(entry, inputs)
    }

    /// Looks at all numbers of its weights, if it is small.
    ///
    /// # Errors
    /// A tensor has numbers that are not finite.
    pub fn check(&self, file: &Tensors) -> Result<()> {
        self.0.check(file)
    }

    /// Whether it is built over a checkpoint's UNet: it is opened of what [`Self::over`] makes.
    pub fn is_over_base(&self) -> bool {
        self.0.is_over_base()
    }

    /// The whole weights of its file over those of a checkpoint's, as patches leave them.
    ///
    /// # Errors
    /// The checkpoint's UNet is none that they can be added to.
    pub fn over(&self, file: Tensors, base: Tensors, patches: &[Arc<dyn Patch>]) -> Result<Tensors> {
        self.0.over(file, base, patches)
    }

    /// Bytes that making those takes, beside the weights.
    pub fn making_bytes(&self) -> u64 {
        self.0.making_bytes()
    }

    /// Reads it from the same file.
    ///
    /// # Errors
    /// The file's tensors are not those of the network.
    pub fn open(&self, file: &Tensors, device: &Device, precision: Precision) -> Result<Arc<dyn Standalone>> {
        self.0.open(file, device, precision)
    }
}

//! What a device must be able to do: the few operations that networks are made of, on packed weights and on
//! activations that stay where they are.
//!
//! Layers check shapes before they call; a device computes. Whatever it computes, a result depends on the operands
//! only: not on the batch it stands in, the order of its rows, or the number of threads.

use std::ops::Deref;
use std::sync::Arc;

use latentd_kernels::{Stop, Weights, Wrap};

use super::activations::Activations;
use super::epilogue::Epilogue;
use super::packed::{Keys, Layout, Matrix, Vector};
use super::pointwise::Pointwise;
use super::precision::Precision;
use crate::error::Result;
use crate::nn::LowRank;

/// A device, shared by all that lies on it.
#[derive(Clone)]
pub struct Device(Arc<dyn Backend>);

impl Device {
    /// One that computes with this.
    pub fn new(backend: impl Backend) -> Self {
        Self(Arc::new(backend))
    }

    /// Whether both are the same.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Does `work`, a run of many operations, where the device's threads are near, and waits for it.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let (mut work, mut done) = (Some(work), None);
        // A thread that waits inside another run may be given this one: what stops that does not stop this.
        let stop = Stop::new(None);
        self.on_threads(&mut || done = work.take().map(|work| stop.within(work)));
        done.unwrap_or_else(|| unreachable!("a device does what it is given"))
    }
}

impl Deref for Device {
    type Target = dyn Backend;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

/// Bytes of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceMemory {
    /// In use now: activations, and weights where the device counts them.
    pub used: u64,
    /// The most that was in use at once.
    pub most: u64,
    /// What may be in use; `None` where only the system knows.
    pub limit: Option<u64>,
}

/// A group norm's weights and how it is taken.
#[derive(Clone, Copy)]
pub struct Norm<'a> {
    /// A factor per channel.
    pub weight: &'a Vector,
    /// A number added per channel.
    pub bias: &'a Vector,
    /// Groups of channels.
    pub groups: usize,
    /// Added to the variance.
    pub epsilon: f32,
    /// SiLU follows.
    pub silu: bool,
}

/// The geometry of a convolution over `(batch, height, width, channels)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvConfig {
    /// Input channels.
    pub inputs: usize,
    /// Output channels.
    pub outputs: usize,
    /// Kernel rows and columns.
    pub kernel: usize,
    /// Step of the kernel.
    pub stride: usize,
    /// Rows above and columns to the left that the picture does not have: zeros, unless it wraps.
    pub pad_before: usize,
    /// The same below and to the right.
    pub pad_after: usize,
    /// The input is enlarged by this factor first, nearest neighbour.
    pub upsample: usize,
    /// What stands beyond the border.
    pub wrap: Wrap,
}

impl ConvConfig {
    /// A 3×3 convolution that keeps the size.
    pub fn same(inputs: usize, outputs: usize) -> Self {
        Self {
            inputs,
            outputs,
            kernel: 3,
            stride: 1,
            pad_before: 1,
            pad_after: 1,
            upsample: 1,
            wrap: Wrap::default(),
        }
    }
}

/// Reads weights from an element on, as many as there is room for.
pub type ReadWeights<'a> = dyn Fn(usize, &mut [f32]) -> Result<()> + Sync + 'a;

/// Which row of what there is a row is taken from.
pub type RowOf<'a> = dyn Fn(usize) -> usize + Sync + 'a;

/// One way to compute. All methods take activations, weights and keys of the same device.
pub trait Backend: Send + Sync + 'static {
    /// "cpu", "fake", "dry-run".
    fn kind(&self) -> &'static str;

    /// Does `work` on a thread from which operations start without waiting for another: once, before it returns.
    fn on_threads(&self, work: &mut (dyn FnMut() + Send)) {
        work();
    }

    /// Whether numbers are computed. One that only counts takes weights without looking at them.
    fn computes(&self) -> bool {
        true
    }

    /// What is quickest here.
    fn best_precision(&self) -> Precision;

    /// Bytes of activations and of what the device holds beside them.
    fn memory(&self) -> DeviceMemory;

    /// Gives memory that nothing uses back to the system.
    fn release(&self) {}

    /// A named run of operations begins, such as "unet.in.3": memory is reported by it, and failures of a device are
    /// told with it.
    fn enter(&self, section: &str) -> Result<()>;

    /// Packs weights as a file holds them, for products in a precision. `Err` in the result says what is wrong with
    /// them.
    fn matrix(
        &self,
        layout: Layout,
        precision: Precision,
        weights: Weights<'_>,
    ) -> Result<std::result::Result<Matrix, latentd_kernels::PackError>>;

    /// Whether a matrix that is packed for this precision has all that its source had.
    fn packs_exactly(&self, _precision: Precision) -> bool {
        false
    }

    /// As [`Self::matrix`] of `weights` plus a product, `up (outputs, rank) · down (rank, inputs × kernel)`, in the form of
    /// `base`, which is packed of the same weights; where that [packs exactly](Self::packs_exactly) they are not needed.
    fn matrix_plus(
        &self,
        base: &Matrix,
        weights: Option<&ReadWeights<'_>>,
        product: &LowRank,
    ) -> Result<std::result::Result<Matrix, latentd_kernels::PackError>>;

    /// Takes a vector of weights; `length` numbers, of which there are none where nothing is computed.
    fn vector(&self, values: Vec<f32>, length: usize) -> Result<Vector>;

    /// f32 numbers from the host.
    fn upload(&self, values: &[f32], dims: &[usize]) -> Result<Activations>;

    /// As f32 on the host. Zeros where nothing is computed.
    fn download(&self, x: &Activations) -> Result<Vec<f32>>;

    /// In another precision, rounded to it; shared if they are in it.
    fn convert(&self, x: &Activations, precision: Precision) -> Result<Activations>;

    /// `x Wᵀ` over the last dimension, finished by `epilogue`, as `dims`. For weights with gates the first half of the
    /// outputs, times the exact GELU of the second.
    fn product(
        &self,
        x: &Activations,
        weight: &Matrix,
        epilogue: &Epilogue,
        dims: &[usize],
    ) -> Result<Activations>;

    /// A convolution of `x`, or of what `norm` makes of it, finished by `epilogue`, as `dims`.
    fn convolution(
        &self,
        x: &Activations,
        norm: Option<&Norm>,
        weight: &Matrix,
        config: &ConvConfig,
        epilogue: &Epilogue,
        dims: &[usize],
    ) -> Result<Activations>;

    /// Normalised per image and group of channels.
    fn group_norm(&self, x: &Activations, norm: &Norm) -> Result<Activations>;

    /// Normalised over the last dimension, in `precision`.
    fn layer_norm(
        &self,
        x: &Activations,
        weight: &Vector,
        bias: &Vector,
        epsilon: f32,
        precision: Precision,
    ) -> Result<Activations>;

    /// Packs keys and values `(batch, keys, channels)` of some heads.
    fn keys(&self, k: &Activations, v: &Activations, heads: usize) -> Result<Keys>;

    /// softmax(q kᵀ / √head_dim) v for each head of `q (batch, queries, channels)`, where the batch is that of all
    /// `keys` one after the other. With `causal`, query `i` sees keys up to `i`.
    fn attention(&self, q: &Activations, keys: &[&Keys], causal: bool) -> Result<Activations>;

    /// `x · sigmoid(x)` of f32 activations.
    fn silu(&self, x: &Activations) -> Result<Activations>;

    /// A function of each number, in the same precision.
    fn pointwise(&self, x: &Activations, function: Pointwise) -> Result<Activations>;

    /// The sum of two of equal shape, in the precision of the first.
    fn add(&self, a: &Activations, b: &Activations) -> Result<Activations>;

    /// The product of two of equal shape, number by number, in the precision of the first.
    fn multiply(&self, a: &Activations, b: &Activations) -> Result<Activations>;

    /// `a · weight · mask`, and `b` times as much of its own added where there is one, in the precision of `a`. A mask
    /// has a number per row of channels of one entry of the batch, and is the same for all.
    fn blend(
        &self,
        a: (&Activations, f32, Option<&[f32]>),
        b: Option<(&Activations, f32, Option<&[f32]>)>,
    ) -> Result<Activations>;

    /// Joined along the channels.
    fn join(&self, a: &Activations, b: &Activations) -> Result<Activations>;

    /// One after the other along the first dimension; all other sizes and the precision are the same.
    fn stack(&self, parts: &[&Activations]) -> Result<Activations>;

    /// `count` entries of the first dimension from `start` on.
    fn part(&self, x: &Activations, start: usize, count: usize) -> Result<Activations>;

    /// Vectors of as many numbers as the last of `dims` in another order: number `i` of the result, counted over all its other
    /// dimensions, is number `row(i)` of `x`, each of which exists.
    fn rows(&self, x: &Activations, dims: &[usize], row: &RowOf<'_>) -> Result<Activations>;

    /// `(batch, height, width, channels)` → `(batch, rows, columns, channels)`, nearest neighbour, torch's rounding.
    fn resize_nearest(&self, x: &Activations, rows: usize, columns: usize) -> Result<Activations>;
}

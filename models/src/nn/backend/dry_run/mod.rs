//! A device that only counts: bytes of weights and activations as the CPU takes them, and multiply-adds.
//!
//! A network built on it is empty: its tensors are checked by name and shape, none is read. Run on it, a network takes
//! and gives back what it would, in its own order, so the most that was in use at once is known beforehand for any size
//! of picture.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use half::bf16;
use latentd_kernels::tiled::{self, FUSED_PIXELS, TiledMatrix};
use latentd_kernels::{Buffer, PackError, PackedKeys, PackedMatrix, WeightDtype, Weights};

use super::{
    Activations, Backend, ConvConfig, Device, DeviceMemory, Epilogue, Keys, Layout, Matrix, Norm, Pointwise,
    Precision, ReadWeights, RowOf, Vector,
};
use crate::error::{Result, bail};
use crate::nn::LowRank;

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bytes of activations, keys and kernels' scratch that are in use.
    pub used: u64,
    /// The most that was in use at once.
    pub most: u64,
    /// Bytes of packed weights, all together.
    pub weights: u64,
    /// Multiply-adds of products, convolutions and attention.
    pub multiply_adds: u64,
}

/// Reads the counts of a dry run.
#[derive(Clone, Default)]
pub struct Counter(Arc<Mutex<Counts>>);

impl Counter {
    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        *self.lock()
    }

    /// Forgets the most that was in use, and the multiply-adds.
    pub fn restart(&self) {
        let mut counts = self.lock();
        (counts.most, counts.multiply_adds) = (counts.used, 0);
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file that is no model may claim tensors of any size, before it is refused for it.
    fn add_weights(&self, bytes: usize) {
        let mut counts = self.lock();
        counts.weights = counts.weights.saturating_add(bytes as u64);
    }

    fn hold(&self, bytes: usize) -> Held {
        let mut counts = self.lock();
        counts.used += bytes as u64;
        counts.most = counts.most.max(counts.used);
        Held { counter: self.clone(), bytes: bytes as u64 }
    }
}

/// Bytes that are in use until this is dropped.
struct Held {
    counter: Counter,
    bytes: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.counter.lock().used -= self.bytes;
    }
}

/// A dry run of the CPU, and what reads its counts.
pub fn dry_run() -> (Device, Counter) {
    let counter = Counter::default();
    (Device::new(DryRun { counter: counter.clone() }), counter)
}

struct DryRun {
    counter: Counter,
}

impl DryRun {
    fn made(&self, precision: Precision, dims: &[usize]) -> Activations {
        let count = dims.iter().product();
        let bytes = match precision {
            Precision::F32 => Buffer::<f32>::bytes_of(count),
            Precision::Bf16 => Buffer::<bf16>::bytes_of(count),
        };
        Activations::new(self.counter.hold(bytes), precision, dims)
    }

    fn multiplied(&self, rows: usize, layout: Layout) {
        let (outputs, inputs, taps) = layout.sizes();
        self.counter.lock().multiply_adds += (rows * outputs * inputs * taps) as u64;
    }
}

impl Backend for DryRun {
    fn kind(&self) -> &'static str {
        "dry-run"
    }

    fn computes(&self) -> bool {
        false
    }

    fn best_precision(&self) -> Precision {
        Precision::best()
    }

    fn memory(&self) -> DeviceMemory {
        let counts = self.counter.counts();
        DeviceMemory { used: counts.used, most: counts.most, limit: None }
    }

    fn enter(&self, _section: &str) -> Result<()> {
        Ok(())
    }

    fn matrix(
        &self,
        layout: Layout,
        precision: Precision,
        weights: Weights<'_>,
    ) -> Result<std::result::Result<Matrix, PackError>> {
        let (outputs, inputs, taps) = layout.sizes();
        let bytes = match precision {
            Precision::F32 => PackedMatrix::bytes_of(weights.dtype, outputs, inputs * taps),
            Precision::Bf16 => TiledMatrix::bytes_of(outputs, inputs, taps),
        };
        self.counter.add_weights(bytes);
        Ok(Ok(Matrix::new((), layout, precision, bytes)))
    }

    fn matrix_plus(
        &self,
        base: &Matrix,
        _weights: Option<&ReadWeights<'_>>,
        _product: &LowRank,
    ) -> Result<std::result::Result<Matrix, PackError>> {
        self.matrix(base.layout, base.precision, Weights { dtype: WeightDtype::F32, bytes: &[] })
    }

    fn vector(&self, _values: Vec<f32>, length: usize) -> Result<Vector> {
        let vector = Vector::new((), length);
        self.counter.add_weights(vector.bytes());
        Ok(vector)
    }

    fn upload(&self, _values: &[f32], dims: &[usize]) -> Result<Activations> {
        Ok(self.made(Precision::F32, dims))
    }

    fn download(&self, x: &Activations) -> Result<Vec<f32>> {
        Ok(vec![0.0; x.count()])
    }

    fn convert(&self, x: &Activations, precision: Precision) -> Result<Activations> {
        Ok(if x.precision() == precision { x.clone() } else { self.made(precision, x.dims()) })
    }

    fn product(
        &self,
        x: &Activations,
        weight: &Matrix,
        epilogue: &Epilogue,
        dims: &[usize],
    ) -> Result<Activations> {
        self.multiplied(x.rows(), weight.layout);
        Ok(self.made(epilogue.output(x.precision()), dims))
    }

    fn convolution(
        &self,
        x: &Activations,
        norm: Option<&Norm>,
        weight: &Matrix,
        _config: &ConvConfig,
        epilogue: &Epilogue,
        dims: &[usize],
    ) -> Result<Activations> {
        let pixels: usize = dims.iter().take(3).product();
        self.multiplied(pixels, weight.layout);
        let copied = norm.is_some() && (weight.precision == Precision::F32 || pixels < FUSED_PIXELS);
        let _normed = copied.then(|| self.made(x.precision(), x.dims()));
        Ok(self.made(epilogue.output(x.precision()), dims))
    }

    fn group_norm(&self, x: &Activations, _norm: &Norm) -> Result<Activations> {
        Ok(self.made(x.precision(), x.dims()))
    }

    fn layer_norm(
        &self,
        x: &Activations,
        _weight: &Vector,
        _bias: &Vector,
        _epsilon: f32,
        precision: Precision,
    ) -> Result<Activations> {
        Ok(self.made(precision, x.dims()))
    }

    fn keys(&self, k: &Activations, _v: &Activations, heads: usize) -> Result<Keys> {
        let (batch, count, channels) = k.dims3()?;
        let head_dim = channels / heads.max(1);
        let bytes = match k.precision() {
            Precision::F32 => PackedKeys::bytes_of(batch, heads, head_dim, count),
            Precision::Bf16 => tiled::PackedKeys::bytes_of(batch, heads, head_dim, count),
        };
        Ok(Keys::new(self.counter.hold(bytes), batch, count, channels, heads))
    }

    fn attention(&self, q: &Activations, keys: &[&Keys], _causal: bool) -> Result<Activations> {
        let (_, queries, channels) = q.dims3()?;
        let pairs: usize = keys.iter().map(|keys| keys.batch * keys.count * queries).sum();
        self.counter.lock().multiply_adds += (2 * pairs * channels) as u64;
        Ok(self.made(q.precision(), q.dims()))
    }

    fn silu(&self, x: &Activations) -> Result<Activations> {
        Ok(self.made(Precision::F32, x.dims()))
    }

    fn pointwise(&self, x: &Activations, _function: Pointwise) -> Result<Activations> {
        let _wide = (x.precision() == Precision::Bf16).then(|| self.made(Precision::F32, x.dims()));
        Ok(self.made(x.precision(), x.dims()))
    }

    fn add(&self, a: &Activations, _b: &Activations) -> Result<Activations> {
        let _sums = (a.precision() == Precision::Bf16).then(|| self.made(Precision::F32, a.dims()));
        Ok(self.made(a.precision(), a.dims()))
    }

    fn multiply(&self, a: &Activations, b: &Activations) -> Result<Activations> {
        self.add(a, b)
    }

    fn blend(
        &self,
        a: (&Activations, f32, Option<&[f32]>),
        _b: Option<(&Activations, f32, Option<&[f32]>)>,
    ) -> Result<Activations> {
        let _sums = (a.0.precision() == Precision::Bf16).then(|| self.made(Precision::F32, a.0.dims()));
        Ok(self.made(a.0.precision(), a.0.dims()))
    }

    fn join(&self, a: &Activations, b: &Activations) -> Result<Activations> {
        let mut dims = a.dims().to_vec();
        if let Some(last) = dims.last_mut() {
            *last += b.channels();
        }
        Ok(self.made(a.precision(), &dims))
    }

    fn stack(&self, parts: &[&Activations]) -> Result<Activations> {
        let Some(first) = parts.first() else { bail!("nothing to stack") };
        let mut dims = first.dims().to_vec();
        if let Some(batch) = dims.first_mut() {
            *batch = parts.iter().map(|part| part.batch()).sum();
        }
        Ok(self.made(first.precision(), &dims))
    }

    fn part(&self, x: &Activations, _start: usize, count: usize) -> Result<Activations> {
        let mut dims = x.dims().to_vec();
        if let Some(batch) = dims.first_mut() {
            *batch = count;
        }
        Ok(self.made(x.precision(), &dims))
    }

    fn rows(&self, x: &Activations, dims: &[usize], _row: &RowOf<'_>) -> Result<Activations> {
        Ok(self.made(x.precision(), dims))
    }

    fn resize_nearest(&self, x: &Activations, rows: usize, columns: usize) -> Result<Activations> {
        let (batch, _, _, channels) = x.dims4()?;
        Ok(self.made(x.precision(), &[batch, rows, columns, channels]))
    }
}

#[cfg(test)]
mod tests {
    use latentd_kernels::WeightDtype;

    use super::*;

    /// An empty network is built of a file that may claim anything, before it is known to lack it.
    #[test]
    fn weights_of_any_size_are_counted() {
        let (device, counter) = dry_run();
        let layout = Layout::Linear { outputs: 1 << 24, inputs: 1 << 24 };
        for _ in 0..20_000 {
            let weights = Weights { dtype: WeightDtype::F32, bytes: &[] };
            device.matrix(layout, Precision::F32, weights).expect("counted").expect("packed");
        }
        assert_eq!(counter.counts().weights, u64::MAX);
    }
}

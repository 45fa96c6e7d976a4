//! The CPU: our kernels over the process's memory.

mod attention;
mod functions;
mod memory;
mod pointwise;
mod products;
mod values;

use std::sync::{Arc, OnceLock};

use latentd_kernels::tiled::{self, TiledMatrix};
use latentd_kernels::{GroupNormShape, Isa, OutOfMemory, PackError, PackedMatrix, Weights};
use rayon::ThreadPool;

use super::{
    Activations, Backend, ConvConfig, Device, DeviceMemory, Epilogue, Keys, Layout, Matrix, Norm, Pointwise,
    Precision, ReadWeights, RowOf, Vector,
};
use crate::error::{Error, Result, bail};
use crate::nn::LowRank;
use memory::Host;
pub(super) use memory::{Memory, Packed as PackedByKernels};
use products::{Packed, Vectors};
use values::Values;

/// The kernels over one kind of memory.
pub(super) struct Cpu<M> {
    memory: M,
    isa: Isa,
    /// Where kernels run; on the caller's pool if `None`.
    pool: Option<Arc<ThreadPool>>,
}

/// The CPU as a device, one for the whole process; kernels run on the rayon pool that a caller is in.
pub fn cpu() -> Device {
    static CPU: OnceLock<Device> = OnceLock::new();
    CPU.get_or_init(|| Device::new(Cpu::over(Host, None))).clone()
}

/// The same with threads of its own.
pub fn cpu_on(pool: Arc<ThreadPool>) -> Device {
    Device::new(Cpu::over(Host, Some(pool)))
}

impl From<OutOfMemory> for crate::Error {
    fn from(error: OutOfMemory) -> Self {
        Self::OutOfMemory { bytes: error.bytes as u64 }
    }
}

impl<M: Memory> Cpu<M> {
    /// The kernels over this memory.
    pub(super) fn over(memory: M, pool: Option<Arc<ThreadPool>>) -> Self {
        Self { memory, isa: Isa::current(), pool }
    }

    fn numbers(vector: &Vector) -> Result<&[f32]> {
        Ok(vector.packed::<M::Vector>()?)
    }

    /// The numbers of an epilogue's bias and slopes.
    fn vectors<'a>(epilogue: &Epilogue<'a>) -> Result<Vectors<'a>> {
        let numbers = |vector: Option<&'a Vector>| vector.map(Self::numbers).transpose();
        Ok(Vectors { bias: numbers(epilogue.bias)?, slopes: numbers(epilogue.slopes)? })
    }

    fn new_values(&self, precision: Precision, dims: &[usize]) -> Result<Values> {
        Values::new(&self.memory, precision, dims.iter().product())
    }
}

/// Why a sum of weights and a product could not be made.
enum Unmade {
    Packed(PackError),
    Read(Error),
}

impl From<PackError> for Unmade {
    fn from(error: PackError) -> Self {
        Self::Packed(error)
    }
}

/// A group norm's sizes for `x`.
fn norm_shape(x: &Activations, norm: &Norm) -> GroupNormShape {
    GroupNormShape {
        batch: x.batch(),
        positions: x.rows() / x.batch().max(1),
        channels: x.channels(),
        groups: norm.groups,
        epsilon: norm.epsilon,
        silu: norm.silu,
    }
}

impl<M: Memory> Backend for Cpu<M> {
    fn kind(&self) -> &'static str {
        M::KIND
    }

    fn on_threads(&self, work: &mut (dyn FnMut() + Send)) {
        match &self.pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }

    fn best_precision(&self) -> Precision {
        Precision::best()
    }

    fn memory(&self) -> DeviceMemory {
        self.memory.status()
    }

    fn release(&self) {
        self.memory.release();
    }

    fn enter(&self, section: &str) -> Result<()> {
        self.memory.enter(section)
    }

    fn matrix(
        &self,
        layout: Layout,
        precision: Precision,
        weights: Weights<'_>,
    ) -> Result<std::result::Result<Matrix, PackError>> {
        let _open = self.memory.open();
        let packed = match (precision, layout) {
            (Precision::F32, Layout::Linear { outputs, inputs }) => {
                PackedMatrix::linear(weights, outputs, inputs).map(Packed::F32)
            }
            (Precision::F32, Layout::Gated { outputs, inputs }) => {
                PackedMatrix::gated(weights, outputs, inputs).map(Packed::F32)
            }
            (Precision::F32, Layout::Convolution { outputs, inputs, kernel }) => {
                PackedMatrix::convolution(weights, outputs, inputs, kernel * kernel).map(Packed::F32)
            }
            (Precision::Bf16, Layout::Linear { outputs, inputs }) => {
                TiledMatrix::linear(weights, outputs, inputs).map(Packed::Bf16)
            }
            (Precision::Bf16, Layout::Gated { outputs, inputs }) => {
                TiledMatrix::gated(weights, outputs, inputs).map(Packed::Bf16)
            }
            (Precision::Bf16, Layout::Convolution { outputs, inputs, kernel }) => {
                TiledMatrix::convolution(weights, outputs, inputs, kernel * kernel).map(Packed::Bf16)
            }
        };
        let packed = match packed {
            Ok(Packed::F32(matrix)) => Packed::F32(self.memory.settle(matrix)?),
            Ok(Packed::Bf16(matrix)) => Packed::Bf16(self.memory.settle(matrix)?),
            Err(error) => return Ok(Err(error)),
        };
        let bytes = packed.bytes();
        Ok(Ok(Matrix::new(packed, layout, precision, bytes)))
    }

    fn packs_exactly(&self, precision: Precision) -> bool {
        // bf16 is packed rounded.
        precision == Precision::F32
    }

    fn matrix_plus(
        &self,
        base: &Matrix,
        weights: Option<&ReadWeights<'_>>,
        LowRank { rank, up, down }: &LowRank,
    ) -> Result<std::result::Result<Matrix, PackError>> {
        let _open = self.memory.open();
        let (outputs, inputs, taps) = base.layout.sizes();
        if (up.len(), down.len()) != (outputs * rank, rank * inputs * taps) {
            bail!("a product of {} and {} numbers for {:?}", up.len(), down.len(), base.layout);
        }
        let sum = match (base.packed::<Packed>()?, weights) {
            (Packed::F32(packed), _) => packed.plus_product(self.isa, up, down, *rank, taps).map(Packed::F32),
            (Packed::Bf16(packed), Some(weights)) => {
                let read = |first, out: &mut [f32]| weights(first, out).map_err(Unmade::Read);
                match packed.of_sum(self.isa, &read, up, down, *rank) {
                    Ok(sum) => Ok(Packed::Bf16(sum)),
                    Err(Unmade::Packed(error)) => Err(error),
                    Err(Unmade::Read(error)) => return Err(error),
                }
            }
            (Packed::Bf16(_), None) => bail!("a product is added to weights that were not given"),
        };
        let sum = match sum {
            Ok(Packed::F32(matrix)) => Packed::F32(self.memory.settle(matrix)?),
            Ok(Packed::Bf16(matrix)) => Packed::Bf16(self.memory.settle(matrix)?),
            Err(error) => return Ok(Err(error)),
        };
        let bytes = sum.bytes();
        Ok(Ok(Matrix::new(sum, base.layout, base.precision, bytes)))
    }

    fn vector(&self, values: Vec<f32>, length: usize) -> Result<Vector> {
        let _open = self.memory.open();
        if values.len() != length {
            bail!("{} numbers for a vector of {length}", values.len());
        }
        Ok(Vector::new(self.memory.vector(values)?, length))
    }

    fn upload(&self, values: &[f32], dims: &[usize]) -> Result<Activations> {
        let _open = self.memory.open();
        if dims.iter().product::<usize>() != values.len() {
            bail!("{} numbers are not {dims:?}", values.len());
        }
        let mut buffer = self.memory.buffer(values.len())?;
        buffer.copy_from_slice(values);
        Ok(Values::F32(buffer).with_dims(dims))
    }

    fn download(&self, x: &Activations) -> Result<Vec<f32>> {
        let _open = self.memory.open();
        Ok(match x.storage()? {
            Values::F32(values) => values.to_vec(),
            Values::Bf16(values) => {
                let mut wide = vec![0.0; values.len()];
                values::map(values, &mut wide, half::bf16::to_f32);
                wide
            }
        })
    }

    fn convert(&self, x: &Activations, precision: Precision) -> Result<Activations> {
        let _open = self.memory.open();
        pointwise::convert(&self.memory, x, precision)
    }

    fn product(
        &self,
        x: &Activations,
        weight: &Matrix,
        epilogue: &Epilogue,
        dims: &[usize],
    ) -> Result<Activations> {
        let _open = self.memory.open();
        let vectors = Self::vectors(epilogue)?;
        let mut out = self.new_values(epilogue.output(x.precision()), dims)?;
        products::product(self.isa, x, weight, epilogue, vectors, &mut out)?;
        Ok(out.with_dims(dims))
    }

    fn convolution(
        &self,
        x: &Activations,
        norm: Option<&Norm>,
        weight: &Matrix,
        config: &ConvConfig,
        epilogue: &Epilogue,
        dims: &[usize],
    ) -> Result<Activations> {
        let _open = self.memory.open();
        let vectors = Self::vectors(epilogue)?;
        let (x, scales) = match norm {
            // f32 kernels take what the norm makes; those of bf16 make it themselves, from its factors.
            Some(norm) if weight.precision == Precision::F32 => (self.group_norm(x, norm)?, None),
            Some(norm) => {
                let (weight, bias) = (Self::numbers(norm.weight)?, Self::numbers(norm.bias)?);
                let values = values::bf16(x)?;
                let shape = norm_shape(x, norm);
                let scales = tiled::ChannelScales::group_norm(self.isa, values, shape, weight, bias);
                (x.clone(), Some(scales))
            }
            None => (x.clone(), None),
        };
        let mut out = self.new_values(epilogue.output(x.precision()), dims)?;
        products::convolution(self.isa, &x, scales.as_ref(), weight, config, epilogue, vectors, &mut out)?;
        Ok(out.with_dims(dims))
    }

    fn group_norm(&self, x: &Activations, norm: &Norm) -> Result<Activations> {
        let _open = self.memory.open();
        let (weight, bias) = (Self::numbers(norm.weight)?, Self::numbers(norm.bias)?);
        let (shape, mut out) = (norm_shape(x, norm), self.new_values(x.precision(), x.dims())?);
        match (x.storage()?, &mut out) {
            (Values::F32(x), Values::F32(out)) => {
                latentd_kernels::group_norm(self.isa, x, shape, weight, bias, out);
            }
            (Values::Bf16(x), Values::Bf16(out)) => tiled::group_norm(self.isa, x, shape, weight, bias, out),
            _ => bail!("group norm: another precision"),
        }
        Ok(out.with_dims(x.dims()))
    }

    fn layer_norm(
        &self,
        x: &Activations,
        weight: &Vector,
        bias: &Vector,
        epsilon: f32,
        precision: Precision,
    ) -> Result<Activations> {
        let _open = self.memory.open();
        let (weight, bias) = (Self::numbers(weight)?, Self::numbers(bias)?);
        let mut out = self.new_values(precision, x.dims())?;
        match (x.storage()?, &mut out) {
            (Values::F32(x), Values::F32(out)) => {
                latentd_kernels::layer_norm(self.isa, x, weight, bias, epsilon, out);
            }
            (Values::F32(x), Values::Bf16(out)) => {
                tiled::layer_norm(self.isa, &x[..], weight, bias, epsilon, out);
            }
            (Values::Bf16(x), Values::Bf16(out)) => {
                tiled::layer_norm(self.isa, &x[..], weight, bias, epsilon, out);
            }
            (Values::Bf16(_), Values::F32(_)) => bail!("layer norm: bf16 activations to f32"),
        }
        Ok(out.with_dims(x.dims()))
    }

    fn keys(&self, k: &Activations, v: &Activations, heads: usize) -> Result<Keys> {
        let _open = self.memory.open();
        attention::keys(&self.memory, k, v, heads)
    }

    fn attention(&self, q: &Activations, keys: &[&Keys], causal: bool) -> Result<Activations> {
        let _open = self.memory.open();
        let mut out = self.new_values(q.precision(), q.dims())?;
        attention::attention(self.isa, q, keys, causal, &mut out)?;
        Ok(out.with_dims(q.dims()))
    }

    fn silu(&self, x: &Activations) -> Result<Activations> {
        let _open = self.memory.open();
        let values = values::f32(x)?;
        let mut out = self.memory.buffer(values.len())?;
        out.copy_from_slice(values);
        latentd_kernels::silu(self.isa, &mut out);
        Ok(Values::F32(out).with_dims(x.dims()))
    }

    fn pointwise(&self, x: &Activations, function: Pointwise) -> Result<Activations> {
        let _open = self.memory.open();
        functions::apply(&self.memory, self.isa, x, function)
    }

    fn add(&self, a: &Activations, b: &Activations) -> Result<Activations> {
        let _open = self.memory.open();
        pointwise::add(&self.memory, a, b)
    }

    fn multiply(&self, a: &Activations, b: &Activations) -> Result<Activations> {
        let _open = self.memory.open();
        pointwise::multiply(&self.memory, a, b)
    }

    fn blend(
        &self,
        a: (&Activations, f32, Option<&[f32]>),
        b: Option<(&Activations, f32, Option<&[f32]>)>,
    ) -> Result<Activations> {
        let _open = self.memory.open();
        pointwise::blend(&self.memory, a, b)
    }

    fn join(&self, a: &Activations, b: &Activations) -> Result<Activations> {
        let _open = self.memory.open();
        pointwise::join(&self.memory, a, b)
    }

    fn stack(&self, parts: &[&Activations]) -> Result<Activations> {
        let _open = self.memory.open();
        pointwise::stack(&self.memory, parts)
    }

    fn part(&self, x: &Activations, start: usize, count: usize) -> Result<Activations> {
        let _open = self.memory.open();
        pointwise::part(&self.memory, x, start, count)
    }

    fn rows(&self, x: &Activations, dims: &[usize], row: &RowOf<'_>) -> Result<Activations> {
        let _open = self.memory.open();
        pointwise::rows(&self.memory, x, dims, row)
    }

    fn resize_nearest(&self, x: &Activations, rows: usize, columns: usize) -> Result<Activations> {
        let _open = self.memory.open();
        pointwise::resize_nearest(&self.memory, x, rows, columns)
    }
}

//! Where the CPU's kernels keep numbers: the process's own memory, or what stands for a device's.

use std::ops::Deref;
use std::sync::Arc;

use latentd_kernels::tiled::{self, TiledMatrix};
use latentd_kernels::{
    Arena, Buffer, OutOfMemory, PackedKeys, PackedMatrix, Plain, buffer_status, release_buffers,
};

use crate::Error;
use crate::nn::backend::DeviceMemory;

/// Memory that kernels read and write while it is open.
pub(in crate::nn::backend) trait Memory: Send + Sync + 'static {
    /// A vector of weights in it.
    type Vector: Deref<Target = [f32]> + Send + Sync + 'static;
    /// What holds it open.
    type Opened<'a>
    where
        Self: 'a;

    /// What a device with this memory is called.
    const KIND: &'static str;

    /// A named run of operations begins.
    fn enter(&self, section: &str) -> Result<(), Error>;
    fn open(&self) -> Self::Opened<'_>;
    fn buffer<T: Plain>(&self, length: usize) -> Result<Buffer<T>, OutOfMemory>;
    fn vector(&self, values: Vec<f32>) -> Result<Self::Vector, OutOfMemory>;
    /// Takes in what the kernels packed in the process's memory.
    fn settle<T: Packed>(&self, packed: T) -> Result<T, OutOfMemory>;
    fn status(&self) -> DeviceMemory;
    fn release(&self);
}

/// What kernels pack.
pub(in crate::nn::backend) trait Packed: Sized {
    fn moved_to(self, arena: &Arc<Arena>) -> Result<Self, OutOfMemory>;
}

macro_rules! packed {
    ($($kind:ty),*) => {$(
        impl Packed for $kind {
            fn moved_to(self, arena: &Arc<Arena>) -> Result<Self, OutOfMemory> {
                <$kind>::moved_to(self, arena)
            }
        }
    )*};
}

packed!(PackedMatrix, TiledMatrix, PackedKeys, tiled::PackedKeys);

/// The process's own memory.
pub(super) struct Host;

impl Memory for Host {
    type Vector = Vec<f32>;
    type Opened<'a> = ();

    const KIND: &'static str = "cpu";

    fn enter(&self, _section: &str) -> Result<(), Error> {
        Ok(())
    }

    fn open(&self) {}

    fn buffer<T: Plain>(&self, length: usize) -> Result<Buffer<T>, OutOfMemory> {
        Buffer::try_new(length)
    }

    fn vector(&self, values: Vec<f32>) -> Result<Vec<f32>, OutOfMemory> {
        Ok(values)
    }

    fn settle<T: Packed>(&self, packed: T) -> Result<T, OutOfMemory> {
        Ok(packed)
    }

    fn status(&self) -> DeviceMemory {
        let status = buffer_status();
        DeviceMemory { used: status.used as u64, most: status.most as u64, limit: None }
    }

    fn release(&self) {
        release_buffers();
    }
}

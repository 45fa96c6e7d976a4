//! A device that is none: the CPU's kernels over memory that nothing else can touch.
//!
//! Its arena is closed outside of its own operations, so code that reads a device's memory from the host faults here
//! instead of on the first real device; it has a limit of its own; and it fails where it is told to. For tests of
//! everything that a device's memory and failures touch, plugins included.

use std::sync::{Arc, Mutex, PoisonError};

use latentd_kernels::{Arena, Buffer, Opened, OutOfMemory, Plain};
use rayon::ThreadPool;

use super::cpu::{Cpu, Memory, PackedByKernels};
use super::{Device, DeviceMemory};
use crate::Error;

/// Which section fails; to be told while the device is in use.
#[derive(Clone, Default)]
pub struct Failures(Arc<Mutex<Option<String>>>);

impl Failures {
    /// The next run of operations with this name fails, once.
    pub fn fail_in(&self, section: &str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(section.to_owned());
    }

    fn take(&self, section: &str) -> bool {
        let mut wanted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.take_if(|wanted| wanted == section).is_some()
    }
}

/// A fake device with `limit` bytes, and what makes it fail. Its kernels run on `pool`, or on the caller's.
///
/// # Errors
/// If the system has no room for them.
pub fn fake(limit: usize, pool: Option<Arc<ThreadPool>>) -> Result<(Device, Failures), Error> {
    let failures = Failures::default();
    let memory = FakeMemory { arena: Arena::new(limit)?, failures: failures.clone() };
    Ok((Device::new(Cpu::over(memory, pool)), failures))
}

struct FakeMemory {
    arena: Arc<Arena>,
    failures: Failures,
}

impl Memory for FakeMemory {
    type Vector = Buffer<f32>;
    type Opened<'a> = Opened<'a>;

    const KIND: &'static str = "fake";

    fn enter(&self, section: &str) -> Result<(), Error> {
        if self.failures.take(section) {
            return Err(Error::Device(format!("the fake device failed in {section}, as it was told to")));
        }
        Ok(())
    }

    fn open(&self) -> Opened<'_> {
        self.arena.open()
    }

    fn buffer<T: Plain>(&self, length: usize) -> Result<Buffer<T>, OutOfMemory> {
        Buffer::in_arena(&self.arena, length)
    }

    fn vector(&self, values: Vec<f32>) -> Result<Buffer<f32>, OutOfMemory> {
        let mut vector = Buffer::in_arena(&self.arena, values.len())?;
        vector.copy_from_slice(&values);
        Ok(vector)
    }

    fn settle<T: PackedByKernels>(&self, packed: T) -> Result<T, OutOfMemory> {
        packed.moved_to(&self.arena)
    }

    fn status(&self) -> DeviceMemory {
        let (limit, used, most) = self.arena.status();
        DeviceMemory { used: used as u64, most: most as u64, limit: Some(limit as u64) }
    }

    fn release(&self) {}
}

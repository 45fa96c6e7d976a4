//! Aligned memory that is used again: fresh pages cost more than most kernels that fill them.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use half::bf16;
use memmap2::MmapMut;

/// Bytes from which huge pages are asked for.
const HUGE: usize = 1 << 21;

/// The process's blocks.
static POOL: Mutex<Pool> = Mutex::new(Pool { free: Vec::new(), free_bytes: 0, used_bytes: 0, most_bytes: 0 });

/// Free blocks, the longest unused first, and how much is out.
struct Pool {
    free: Vec<MmapMut>,
    free_bytes: usize,
    used_bytes: usize,
    /// The most that was ever used at once since the pool was emptied.
    most_bytes: usize,
}

impl Pool {
    /// The smallest free block of at least `bytes` that is not twice as large.
    fn take(&mut self, bytes: usize) -> Option<MmapMut> {
        let fits = |index: &usize| (bytes..=2 * bytes).contains(&self.free[*index].len());
        let index = (0..self.free.len()).filter(fits).min_by_key(|index| self.free[*index].len())?;
        let block = self.free.remove(index);
        self.free_bytes -= block.len();
        Some(block)
    }

    /// Blocks that are too many once `bytes` more are used: sizes change from network to network, and old ones must
    /// not pile up.
    fn outgrown(&mut self, bytes: usize) -> Vec<MmapMut> {
        let most = self.most_bytes.max(self.used_bytes + bytes);
        let allowed = most + most / 8 + HUGE;
        let mut gone = vec![];
        while !self.free.is_empty() && self.used_bytes + bytes + self.free_bytes > allowed {
            let block = self.free.remove(0);
            self.free_bytes -= block.len();
            gone.push(block);
        }
        gone
    }

    fn count(&mut self, bytes: usize) {
        self.used_bytes += bytes;
        self.most_bytes = self.most_bytes.max(self.used_bytes);
    }
}

fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for half::bf16 {}
    impl Sealed for u16 {}
}

/// What a [`Buffer`] holds: numbers for which any bits will do.
pub trait Plain: Copy + Default + Send + Sync + sealed::Sealed + 'static {}
impl Plain for f32 {}
impl Plain for bf16 {}
impl Plain for u16 {}

/// Values on 64-byte boundaries, on huge pages where they are many and the system allows it. What is dropped stays
/// with the process for the next buffer, until [`release_buffers`].
pub struct Buffer<T: Plain> {
    /// Always there until dropped.
    block: Option<MmapMut>,
    length: usize,
    keep: bool,
    values: PhantomData<T>,
}

impl<T: Plain> Buffer<T> {
    /// For results: what it holds at first is unspecified, zeros or something older.
    pub fn new(length: usize) -> Self {
        Self { block: Some(take(bytes::<T>(length))), length, keep: true, values: PhantomData }
    }

    /// For weights: zeros in memory of its own, given back to the system when dropped.
    pub fn fixed(length: usize) -> Self {
        Self { block: Some(fresh(bytes::<T>(length))), length, keep: false, values: PhantomData }
    }
}

impl<T: Plain> Drop for Buffer<T> {
    fn drop(&mut self) {
        if let Some(block) = self.block.take().filter(|_| self.keep) {
            let mut pool = pool();
            pool.used_bytes -= block.len();
            pool.free_bytes += block.len();
            pool.free.push(block);
        }
    }
}

impl<T: Plain> Deref for Buffer<T> {
    type Target = [T];

    #[allow(unsafe_code)]
    fn deref(&self) -> &[T] {
        let Some(block) = &self.block else { return &[] };
        // SAFETY: the block is mapped for at least `length` values, initialised (zeros or what was written before),
        // any bits are a `T`, and a map begins on a page boundary.
        unsafe { std::slice::from_raw_parts(block.as_ptr().cast(), self.length) }
    }
}

impl<T: Plain> DerefMut for Buffer<T> {
    #[allow(unsafe_code)]
    fn deref_mut(&mut self) -> &mut [T] {
        let Some(block) = &mut self.block else { return &mut [] };
        // SAFETY: as in `deref`; the borrow is unique because `self` is.
        unsafe { std::slice::from_raw_parts_mut(block.as_mut_ptr().cast(), self.length) }
    }
}

/// Gives memory that no buffer uses back to the system.
pub fn release_buffers() {
    let mut pool = pool();
    let free = std::mem::take(&mut pool.free);
    pool.free_bytes = 0;
    pool.most_bytes = pool.used_bytes;
    drop(pool);
    // Outside of the lock: it takes a while.
    drop(free);
}

/// Sizes are rounded up to eighths of a power of two, so that nearly equal ones share blocks.
fn bytes<T: Plain>(length: usize) -> usize {
    let bytes = length.checked_mul(size_of::<T>()).expect("a size in memory").max(4096);
    let unit = (bytes.next_power_of_two() / 16).max(4096);
    bytes.next_multiple_of(unit)
}

fn take(bytes: usize) -> MmapMut {
    let outgrown = {
        let mut pool = pool();
        if let Some(block) = pool.take(bytes) {
            pool.count(block.len());
            return block;
        }
        let outgrown = pool.outgrown(bytes);
        pool.count(bytes);
        outgrown
    };
    // Outside of the lock, and before more is taken.
    drop(outgrown);
    fresh(bytes)
}

fn fresh(bytes: usize) -> MmapMut {
    let block = MmapMut::map_anon(bytes).expect("memory");
    #[cfg(target_os = "linux")]
    if bytes >= HUGE {
        // Faster where it is allowed, no matter where not.
        block.advise(memmap2::Advice::HugePage).ok();
    }
    block
}

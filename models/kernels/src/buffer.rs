//! Aligned memory that is used again: fresh pages cost more than most kernels that fill them.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use half::bf16;
use memmap2::MmapMut;

use crate::arena::{Arena, ArenaMemory};
use crate::out_of_memory::OutOfMemory;

/// Bytes from which huge pages are asked for, and of such a page.
const HUGE: usize = 2 << 20;
/// Bytes from which a buffer counts as large.
const LARGE: usize = 256 << 10;
/// Bytes of a region that several buffers share.
const REGION: usize = 16 << 20;
/// Where buffers may begin: a cache line; large ones at a page.
const LINE: usize = 64;
const PAGE: usize = 4096;
/// Most bytes of a buffer: half of what Rust allows, so that rounding never overflows.
const MOST: usize = isize::MAX as usize / 2;

/// The process's memory for buffers.
static POOL: Mutex<Pool> = Mutex::new(Pool::EMPTY);

/// Small and large buffers lie apart, so that a small one that stays does not split what a large one needs.
struct Pool {
    small: Vec<Region>,
    large: Vec<Region>,
    /// Bytes of all regions, of what is lent of them, and the most that ever was since the pool was emptied.
    mapped: usize,
    used: usize,
    most: usize,
}

/// Memory that buffers are cut from.
struct Region {
    map: MmapMut,
    start: NonNull<u8>,
    /// What is not lent, in order; two that touch are one.
    free: Vec<Range<usize>>,
}

// SAFETY: `start` is that of `map`, which is `Send`; the region reads and writes nothing through it.
unsafe impl Send for Region {}

impl Region {
    fn new(bytes: usize) -> Result<Self, OutOfMemory> {
        let mut map = fresh(bytes)?;
        let start = NonNull::new(map.as_mut_ptr()).expect("a map has an address");
        Ok(Self { free: std::iter::once(0..map.len()).collect(), map, start })
    }

    fn is_free(&self) -> bool {
        self.free.first() == Some(&(0..self.map.len()))
    }

    fn cut(&mut self, index: usize, bytes: usize) -> Lent {
        let place = &mut self.free[index];
        let start = place.start;
        place.start += bytes;
        if place.start == place.end {
            self.free.remove(index);
        }
        // SAFETY: within the map.
        Lent { start: unsafe { self.start.add(start) }, bytes }
    }

    /// Where in the region this is, if it is of this one.
    fn place_of(&self, lent: &Lent) -> Option<Range<usize>> {
        let start = lent.start.addr().get().checked_sub(self.start.addr().get())?;
        (start < self.map.len()).then_some(start..start + lent.bytes)
    }

    fn join(&mut self, place: Range<usize>) {
        let index = self.free.partition_point(|free| free.start < place.start);
        self.free.insert(index, place);
        if self.free.get(index + 1).is_some_and(|next| next.start == self.free[index].end) {
            self.free[index].end = self.free.remove(index + 1).end;
        }
        if index > 0 && self.free[index - 1].end == self.free[index].start {
            self.free[index - 1].end = self.free.remove(index).end;
        }
    }
}

impl Pool {
    const EMPTY: Self = Self { small: vec![], large: vec![], mapped: 0, used: 0, most: 0 };

    fn regions(&mut self, bytes: usize) -> &mut Vec<Region> {
        if bytes < LARGE { &mut self.small } else { &mut self.large }
    }

    /// The tightest free place.
    fn take(&mut self, bytes: usize) -> Option<Lent> {
        let regions = self.regions(bytes);
        let places = regions.iter().enumerate().flat_map(|(at, region)| {
            region.free.iter().enumerate().map(move |(index, free)| (free.len(), at, index))
        });
        let (_, at, index) = places.filter(|(length, ..)| *length >= bytes).min()?;
        let lent = regions[at].cut(index, bytes);
        self.count(bytes);
        Some(lent)
    }

    /// A new region, of which `bytes` are lent at once.
    fn add(&mut self, mut region: Region, bytes: usize) -> Lent {
        self.mapped += region.map.len();
        let lent = region.cut(0, bytes);
        self.regions(bytes).push(region);
        self.count(bytes);
        lent
    }

    fn count(&mut self, bytes: usize) {
        self.used += bytes;
        self.most = self.most.max(self.used);
    }

    /// Regions that are too many once `bytes` more are mapped: sizes change from network to network, and old ones
    /// must not pile up.
    fn outgrown(&mut self, bytes: usize) -> Vec<Region> {
        let most = self.most.max(self.used + bytes);
        let allowed = most + most / 8 + REGION;
        let mut gone = vec![];
        for regions in [&mut self.large, &mut self.small] {
            let mut at = 0;
            while at < regions.len() && self.mapped + bytes > allowed {
                if regions[at].is_free() {
                    let region = regions.remove(at);
                    self.mapped -= region.map.len();
                    gone.push(region);
                } else {
                    at += 1;
                }
            }
        }
        gone
    }

    fn give_back(&mut self, lent: &Lent) {
        self.used -= lent.bytes;
        for region in self.regions(lent.bytes) {
            if let Some(place) = region.place_of(lent) {
                return region.join(place);
            }
        }
    }
}

fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A part of a region that is one buffer's alone.
struct Lent {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: nobody else has this part of the region, which stays mapped until it is given back.
unsafe impl Send for Lent {}
// SAFETY: as above; through `&Lent` nothing is written.
unsafe impl Sync for Lent {}

impl Drop for Lent {
    fn drop(&mut self) {
        pool().give_back(self);
    }
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
/// with the process for the next buffer, until it is in the way of one of another size or [`release_buffers`] is called.
pub struct Buffer<T: Plain> {
    memory: Memory,
    length: usize,
    values: PhantomData<T>,
}

enum Memory {
    #[cfg_attr(feature = "guard-pages", allow(dead_code, reason = "every buffer has memory of its own then"))]
    Lent(Lent),
    /// Values begin this many bytes behind the map's start.
    Own(MmapMut, usize),
    /// Of an arena, which must be open while they are touched.
    Arena(ArenaMemory),
}

impl Memory {
    #[cfg(not(feature = "guard-pages"))]
    fn own(bytes: usize) -> Result<Self, OutOfMemory> {
        Ok(Self::Own(fresh(bytes)?, 0))
    }

    /// With a page behind it that nobody may touch.
    #[cfg(feature = "guard-pages")]
    fn own(bytes: usize) -> Result<Self, OutOfMemory> {
        let before = bytes.next_multiple_of(PAGE) - bytes;
        let mut map = fresh(before + bytes + PAGE)?;
        // SAFETY: the last page of the map.
        let denied =
            unsafe { libc::mprotect(map[before + bytes..].as_mut_ptr().cast(), PAGE, libc::PROT_NONE) };
        assert_eq!(denied, 0, "a page can be guarded");
        Ok(Self::Own(map, before))
    }

    /// All NaN, whatever the type: who reads what was never written should show it.
    #[cfg(feature = "guard-pages")]
    fn poisoned(mut self) -> Self {
        if let Self::Own(map, start) = &mut self {
            let end = map.len() - PAGE;
            map[*start..end].fill(0xff);
        }
        self
    }
}

impl<T: Plain> Buffer<T> {
    /// For results: what it holds at first is unspecified, zeros or something older.
    ///
    /// # Errors
    /// If the system has no memory for it.
    pub fn try_new(length: usize) -> Result<Self, OutOfMemory> {
        #[cfg(not(feature = "guard-pages"))]
        let memory = Memory::Lent(take(bytes::<T>(length))?);
        #[cfg(feature = "guard-pages")]
        let memory = Memory::own(bytes::<T>(length))?.poisoned();
        Ok(Self { memory, length, values: PhantomData })
    }

    /// As [`Self::try_new`] within a kernel, which has no other way out.
    ///
    /// # Panics
    /// With an [`OutOfMemory`] where the system has none: who contains panics can tell it from a defect.
    pub fn new(length: usize) -> Self {
        Self::try_new(length).unwrap_or_else(|error| std::panic::panic_any(error))
    }

    /// For weights: zeros in memory of its own, given back to the system when dropped.
    ///
    /// # Panics
    /// As [`Self::new`].
    pub fn fixed(length: usize) -> Self {
        let memory = Memory::own(bytes::<T>(length)).unwrap_or_else(|error| std::panic::panic_any(error));
        Self { memory, length, values: PhantomData }
    }

    /// In an arena's memory, for whoever opens it: what it holds at first is unspecified.
    ///
    /// # Errors
    /// If the arena is full.
    pub fn in_arena(arena: &Arc<Arena>, length: usize) -> Result<Self, OutOfMemory> {
        let memory = Memory::Arena(Arena::take(arena, bytes::<T>(length))?);
        Ok(Self { memory, length, values: PhantomData })
    }

    /// The same values in an arena's memory, which must be open.
    ///
    /// # Errors
    /// If the arena is full.
    pub fn moved_to(self, arena: &Arc<Arena>) -> Result<Self, OutOfMemory> {
        let mut moved = Self::in_arena(arena, self.length)?;
        moved.copy_from_slice(&self);
        Ok(moved)
    }

    /// Bytes that `length` values take.
    pub fn bytes_of(length: usize) -> usize {
        bytes::<T>(length)
    }
}

impl<T: Plain> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        let start = match &self.memory {
            Memory::Lent(lent) => lent.start.as_ptr().cast_const(),
            Memory::Own(map, start) => map[*start..].as_ptr(),
            Memory::Arena(memory) => memory.start().as_ptr().cast_const(),
        };
        // SAFETY: there are at least `length` values, initialised (zeros or what was written before), any bits are a
        // `T`, and memory begins at a cache line.
        unsafe { std::slice::from_raw_parts(start.cast(), self.length) }
    }
}

impl<T: Plain> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        let start = match &mut self.memory {
            Memory::Lent(lent) => lent.start.as_ptr(),
            Memory::Own(map, start) => map[*start..].as_mut_ptr(),
            Memory::Arena(memory) => memory.start().as_ptr(),
        };
        // SAFETY: as in `deref`; the borrow is unique because `self` is.
        unsafe { std::slice::from_raw_parts_mut(start.cast(), self.length) }
    }
}

/// What buffers of this process take, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BufferStatus {
    /// Memory that is kept for them, in use or not.
    pub mapped: usize,
    /// Memory that buffers have now.
    pub used: usize,
    /// The most that they had at once since memory was given back.
    pub most: usize,
}

/// What buffers take now. Those of weights and arenas are not in it.
pub fn buffer_status() -> BufferStatus {
    let pool = pool();
    BufferStatus { mapped: pool.mapped, used: pool.used, most: pool.most }
}

/// Gives memory that no buffer uses back to the system.
pub fn release_buffers() {
    let mut pool = pool();
    let mut gone = vec![];
    let Pool { small, large, mapped, .. } = &mut *pool;
    for regions in [small, large] {
        gone.extend(regions.extract_if(.., |region| region.is_free()));
    }
    *mapped -= gone.iter().map(|region| region.map.len()).sum::<usize>();
    pool.most = pool.used;
    drop(pool);
    // Outside of the lock: it takes a while.
    drop(gone);
}

fn bytes<T: Plain>(length: usize) -> usize {
    let bytes = length.checked_mul(size_of::<T>()).filter(|bytes| *bytes <= MOST).expect("a size in memory");
    let unit = if bytes < LARGE || cfg!(feature = "guard-pages") { LINE } else { PAGE };
    bytes.max(1).next_multiple_of(unit)
}

#[cfg_attr(feature = "guard-pages", allow(dead_code, reason = "every buffer has memory of its own then"))]
fn take(bytes: usize) -> Result<Lent, OutOfMemory> {
    // Held throughout, so that threads that all find nothing do not all map a region.
    let mut pool = pool();
    if let Some(lent) = pool.take(bytes) {
        return Ok(lent);
    }
    let size = region_bytes(bytes);
    drop(pool.outgrown(size));
    Ok(pool.add(Region::new(size)?, bytes))
}

/// Bytes of a new region for a buffer that fits in none.
fn region_bytes(bytes: usize) -> usize {
    if bytes < REGION / 2 { REGION } else { bytes.next_multiple_of(HUGE) }
}

fn fresh(bytes: usize) -> Result<MmapMut, OutOfMemory> {
    let map = MmapMut::map_anon(bytes).map_err(|_| OutOfMemory { bytes })?;
    #[cfg(target_os = "linux")]
    if bytes >= HUGE {
        // Faster where it is allowed, no matter where not.
        map.advise(memmap2::Advice::HugePage).ok();
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use std::mem::ManuallyDrop;

    use super::*;

    const SIZES: [usize; 9] = [64, 640, 280_000, 16_000_000, 128, 3_600_000, 70_000_000, 262_144, 8_000_000];

    /// As `take`, from a pool of the test's own. What is lent must not drop: it would go to the process's pool.
    fn lend(pool: &mut Pool, bytes: usize) -> ManuallyDrop<Lent> {
        let lent = pool
            .take(bytes)
            .unwrap_or_else(|| pool.add(Region::new(region_bytes(bytes)).expect("memory"), bytes));
        ManuallyDrop::new(lent)
    }

    #[test]
    fn the_same_again_needs_no_new_memory() {
        let mut pool = Pool::EMPTY;
        let mut mapped = vec![];
        for _ in 0..3 {
            let mut held: Vec<ManuallyDrop<Lent>> = vec![];
            for (turn, bytes) in SIZES.iter().cycle().take(40).enumerate() {
                let lent = lend(&mut pool, bytes.next_multiple_of(LINE));
                let range = |lent: &Lent| lent.start.addr().get()..lent.start.addr().get() + lent.bytes;
                let new = range(&lent);
                assert!(new.start.is_multiple_of(LINE));
                assert!(
                    held.iter().map(|old| range(old)).all(|old| old.end <= new.start || new.end <= old.start)
                );
                held.push(lent);
                if turn % 3 == 2 {
                    let lent = held.remove(turn * 7 % held.len());
                    pool.give_back(&lent);
                }
            }
            for lent in &held {
                pool.give_back(lent);
            }
            assert_eq!(pool.used, 0);
            assert!(pool.small.iter().chain(&pool.large).all(Region::is_free));
            mapped.push(pool.mapped);
        }
        assert_eq!(mapped, [mapped[0]; 3]);
        pool.most = 0;
        let gone: usize = pool.outgrown(0).iter().map(|region| region.map.len()).sum();
        assert_eq!(gone + pool.mapped, mapped[0]);
        assert!(pool.mapped <= REGION);
    }

    #[test]
    fn buffers_keep_what_is_written_to_them() {
        let mut buffers: Vec<Buffer<f32>> = SIZES.iter().map(|size| Buffer::new(size / 8)).collect();
        for (buffer, value) in buffers.iter_mut().zip(1u8..) {
            buffer.fill(value.into());
        }
        for (buffer, value) in buffers.iter().zip(1u8..) {
            assert!(buffer.iter().all(|found| *found == f32::from(value)));
        }
    }
}

//! Memory of a fixed size that nobody can touch but who has opened it.
//!
//! It stands for a device's memory where there is no device: what is computed there goes in and out by explicit
//! copies, and code that reads it directly faults at once instead of working by accident.
#![allow(unsafe_code)]

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memmap2::MmapMut;

use crate::out_of_memory::OutOfMemory;

/// Where buffers begin.
const LINE: usize = 64;

/// One stretch of memory, closed unless somebody holds an [`Opened`].
pub struct Arena {
    map: MmapMut,
    start: NonNull<u8>,
    state: Mutex<State>,
}

struct State {
    /// What is not taken, in order; two that touch are one.
    free: Vec<Range<usize>>,
    used: usize,
    most: usize,
    opened: usize,
}

// SAFETY: `start` is that of `map`, which is `Send` and `Sync`; the arena itself reads and writes nothing through it.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    /// An arena of this many bytes, closed.
    ///
    /// # Errors
    /// If the system has no room for it.
    pub fn new(bytes: usize) -> Result<Arc<Self>, OutOfMemory> {
        let mut map = MmapMut::map_anon(bytes.max(1)).map_err(|_| OutOfMemory { bytes })?;
        let start = NonNull::new(map.as_mut_ptr()).expect("a map has an address");
        let whole = std::iter::once(0..map.len()).collect();
        let arena =
            Self { map, start, state: Mutex::new(State { free: whole, used: 0, most: 0, opened: 0 }) };
        arena.protect(libc::PROT_NONE);
        Ok(Arc::new(arena))
    }

    /// Opens it for as long as the result is held.
    pub fn open(&self) -> Opened<'_> {
        let mut state = self.lock();
        if state.opened == 0 {
            self.protect(libc::PROT_READ | libc::PROT_WRITE);
        }
        state.opened += 1;
        Opened(self)
    }

    /// Bytes in all, taken now, and the most that were taken at once.
    pub fn status(&self) -> (usize, usize, usize) {
        let state = self.lock();
        (self.map.len(), state.used, state.most)
    }

    /// The first free place that is large enough.
    pub(crate) fn take(arena: &Arc<Self>, bytes: usize) -> Result<ArenaMemory, OutOfMemory> {
        let bytes = bytes.max(1).next_multiple_of(LINE);
        let mut state = arena.lock();
        let place = state.free.iter().position(|free| free.len() >= bytes).ok_or(OutOfMemory { bytes })?;
        let start = state.free[place].start;
        state.free[place].start += bytes;
        if state.free[place].is_empty() {
            state.free.remove(place);
        }
        state.used += bytes;
        state.most = state.most.max(state.used);
        drop(state);
        Ok(ArenaMemory { arena: Arc::clone(arena), range: start..start + bytes })
    }

    fn give_back(&self, range: Range<usize>) {
        let mut state = self.lock();
        state.used -= range.len();
        let index = state.free.partition_point(|free| free.start < range.start);
        state.free.insert(index, range);
        if state.free.get(index + 1).is_some_and(|next| next.start == state.free[index].end) {
            state.free[index].end = state.free.remove(index + 1).end;
        }
        if index > 0 && state.free[index - 1].end == state.free[index].start {
            state.free[index - 1].end = state.free.remove(index).end;
        }
    }

    fn protect(&self, rights: libc::c_int) {
        // SAFETY: the whole of a map that is ours; nobody has a reference into it while it is closed.
        let done = unsafe { libc::mprotect(self.start.as_ptr().cast(), self.map.len(), rights) };
        assert_eq!(done, 0, "an arena's rights can be changed");
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An arena that may be touched.
pub struct Opened<'a>(&'a Arena);

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.opened -= 1;
        if state.opened == 0 {
            self.0.protect(libc::PROT_NONE);
        }
    }
}

/// A part of an arena that is one buffer's alone.
pub(crate) struct ArenaMemory {
    arena: Arc<Arena>,
    range: Range<usize>,
}

impl ArenaMemory {
    pub(crate) fn start(&self) -> NonNull<u8> {
        // SAFETY: within the map.
        unsafe { self.arena.start.add(self.range.start) }
    }
}

impl Drop for ArenaMemory {
    fn drop(&mut self) {
        self.arena.give_back(self.range.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Buffer;

    #[test]
    fn memory_is_given_out_up_to_the_limit_and_taken_back() {
        let arena = Arena::new(1 << 16).expect("memory");
        let mut held: Vec<Buffer<f32>> =
            (0..4).map(|_| Buffer::in_arena(&arena, 4096).expect("room")).collect();
        assert_eq!(Buffer::<f32>::in_arena(&arena, 1).err(), Some(OutOfMemory { bytes: 64 }));
        drop(held.remove(1));
        drop(held.remove(1));
        let mut again = Buffer::<f32>::in_arena(&arena, 8192).expect("neighbours are one place again");
        {
            let _open = arena.open();
            again.fill(3.0);
        }
        let _open = arena.open();
        assert!(again.iter().all(|value| *value == 3.0));
        assert_eq!(arena.status(), (1 << 16, 1 << 16, 1 << 16));
    }

    /// A child process, which a read of closed memory must end with a fault.
    #[test]
    fn what_is_closed_cannot_be_read() {
        let arena = Arena::new(1 << 16).expect("memory");
        let buffer = Buffer::<f32>::in_arena(&arena, 16).expect("room");
        drop(arena.open());
        // SAFETY: the child only reads and ends; it allocates nothing and takes no lock.
        let ended = unsafe {
            let child = libc::fork();
            assert!(child >= 0, "a child");
            if child == 0 {
                libc::signal(libc::SIGSEGV, libc::SIG_DFL);
                let value = std::ptr::read_volatile(buffer.as_ptr());
                libc::_exit(i32::from(value == 0.0));
            }
            let mut ended = 0;
            assert_eq!(libc::waitpid(child, &raw mut ended, 0), child);
            ended
        };
        assert!(libc::WIFSIGNALED(ended) && libc::WTERMSIG(ended) == libc::SIGSEGV, "{ended}");
    }
}

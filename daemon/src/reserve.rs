//! Memory for the moment when the system has none left.
//!
//! Rust ends the process when an allocation fails, however small. What needs much memory asks for it in a way that can
//! fail, and then a job fails; but all around it small things are allocated. Those are given from a reserve, which nothing
//! else can use up meanwhile.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::{copy_nonoverlapping, null_mut};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes of the reserve: address space, behind which no memory stands until it is needed.
const BYTES: usize = 32 << 20;
/// Largest allocation that is given from it: half of it would be gone with one.
const LARGEST: usize = 16 << 20;

static OWN: Reserve = Reserve::new();

/// The system's allocator, and the reserve where that fails.
pub(crate) struct Allocator;

// SAFETY: memory is the system allocator's, or a part of the reserve that nobody else has until it is given back; where it
// came from is told by its address.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are passed on, here and below.
        let place = unsafe { System.alloc(layout) };
        if place.is_null() { OWN.take(layout) } else { place }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let place = unsafe { System.alloc_zeroed(layout) };
        if !place.is_null() {
            return place;
        }
        let place = OWN.take(layout);
        if !place.is_null() {
            // SAFETY: as many bytes were taken.
            unsafe { place.write_bytes(0, layout.size()) };
        }
        place
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !OWN.has(place) {
            // SAFETY: as above; where it fails the old place is as it was.
            let moved = unsafe { System.realloc(place, layout, size) };
            if !moved.is_null() {
                return moved;
            }
        }
        // SAFETY: the size is the caller's, which with this alignment is a layout.
        let moved = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !moved.is_null() {
            // SAFETY: two places of at least as many bytes, the old one the caller's to give back.
            unsafe {
                copy_nonoverlapping(place, moved, layout.size().min(size));
                self.dealloc(place, layout);
            }
        }
        moved
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        if OWN.has(place) {
            OWN.give_back();
        } else {
            // SAFETY: as above.
            unsafe { System.dealloc(place, layout) }
        }
    }
}

/// Maps the reserve; called once, before there is need of it.
pub(crate) fn prepare() {
    OWN.prepare();
}

/// Given out from the front; all of it is free again once all that was given is back.
struct Reserve {
    start: AtomicPtr<u8>,
    state: Mutex<State>,
}

struct State {
    used: usize,
    /// Pieces that are not back.
    lent: usize,
}

impl Reserve {
    const fn new() -> Self {
        Self { start: AtomicPtr::new(null_mut()), state: Mutex::new(State { used: 0, lent: 0 }) }
    }

    fn prepare(&self) {
        let (rights, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new map anywhere, which nobody has a reference into.
        let place = unsafe { libc::mmap(null_mut(), BYTES, rights, flags, -1, 0) };
        if place != libc::MAP_FAILED {
            self.start.store(place.cast(), Ordering::Release);
        }
    }

    fn has(&self, place: *mut u8) -> bool {
        let start = self.start.load(Ordering::Relaxed);
        !start.is_null() && (start.addr()..start.addr() + BYTES).contains(&place.addr())
    }

    /// A piece; null if there is none left.
    fn take(&self, layout: Layout) -> *mut u8 {
        let start = self.start.load(Ordering::Acquire);
        let mut state = self.lock();
        // A map begins at a page, to which smaller alignments are relative.
        let at = state.used.next_multiple_of(layout.align());
        let end = at.saturating_add(layout.size().max(1));
        if start.is_null() || layout.size() > LARGEST || layout.align() > 4096 || end > BYTES {
            return null_mut();
        }
        state.used = end;
        state.lent += 1;
        // SAFETY: within the map.
        unsafe { start.add(at) }
    }

    fn give_back(&self) {
        let mut state = self.lock();
        state.lent -= 1;
        if state.lent == 0 {
            state.used = 0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_apart_and_all_is_free_again_once_they_are_back() {
        let reserve = Reserve::new();
        let layout = |size, align| Layout::from_size_align(size, align).expect("a layout");
        assert!(reserve.take(layout(1, 1)).is_null(), "not prepared");
        reserve.prepare();
        for _ in 0..3 {
            let mut end = 0;
            let sizes = [(1, 1), (3, 1), (8, 8), (100, 64), (5000, 4096), (LARGEST, 16), (0, 1)];
            for (size, align) in sizes {
                let place = reserve.take(layout(size, align));
                assert!(reserve.has(place) && place.addr().is_multiple_of(align) && place.addr() >= end);
                // SAFETY: it was just taken.
                unsafe { place.write_bytes(7, size) };
                end = place.addr() + size;
            }
            assert!(reserve.take(layout(LARGEST, 1)).is_null(), "not so much is left");
            assert!(
                reserve.take(layout(LARGEST + 1, 1)).is_null() && reserve.take(layout(1, 8192)).is_null()
            );
            for _ in sizes {
                reserve.give_back();
            }
        }
        assert!(!reserve.has(null_mut()) && !reserve.has((&raw const reserve).cast_mut().cast()));
    }
}

//! An allocator for tests with the feature `guard-pages`: each allocation of some size ends where a page begins that
//! nobody may touch, so that a kernel that reads or writes behind its slices faults at once, whatever instruction it
//! does so with. Before it stand at most a page's other bytes, unguarded.
//!
//! `RUST_BACKTRACE=0 cargo test -p latentd-kernels --features guard-pages` (a backtrace allocates more pieces than a
//! process may have maps).
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;

const PAGE: usize = 4096;
/// Smaller ones come from the system: processes may have some 65,000 maps only.
const GUARDED: usize = 128;

pub(crate) struct Guard;

fn pages(layout: Layout) -> usize {
    layout.size().next_multiple_of(PAGE) + PAGE
}

// SAFETY: allocations are maps of their own, as large as the layout says, aligned because pages are and the distance
// to the guarded one is rounded up to the alignment.
unsafe impl GlobalAlloc for Guard {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() < GUARDED || layout.align() > PAGE {
            // SAFETY: the caller's promise.
            return unsafe { System.alloc(layout) };
        }
        let bytes = pages(layout);
        // SAFETY: a new map, whose last page is denied.
        unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let start = libc::mmap(
                ptr::null_mut(),
                bytes,
                protection,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            if start == libc::MAP_FAILED {
                return ptr::null_mut();
            }
            let guard = start.cast::<u8>().add(bytes - PAGE);
            if libc::mprotect(guard.cast(), PAGE, libc::PROT_NONE) != 0 {
                return ptr::null_mut();
            }
            guard.sub(layout.size().next_multiple_of(layout.align()))
        }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        if layout.size() < GUARDED || layout.align() > PAGE {
            // SAFETY: the caller's promise.
            return unsafe { System.dealloc(at, layout) };
        }
        let bytes = pages(layout);
        // SAFETY: the whole map that `alloc` made.
        unsafe {
            let end = at.add(layout.size().next_multiple_of(layout.align()) + PAGE);
            libc::munmap(end.sub(bytes).cast(), bytes);
        }
    }
}

//! The types that lanes are read from and written to.
#![allow(unsafe_code)]
#![allow(clippy::inline_always, reason = "generic over lanes, compiled into each variant")]

use half::bf16;

use super::vector::{LANES, Lanes};
use crate::buffer::Plain;

/// A type results are stored in.
pub trait Element: Plain + ElementLanes {}
impl Element for f32 {}
impl Element for bf16 {}

/// Reading and writing lanes of an [`Element`].
pub trait ElementLanes: Copy {
    /// # Safety
    /// As [`Lanes`].
    unsafe fn read<L: Lanes>(from: *const Self, count: usize) -> L;
    /// # Safety
    /// As [`Lanes`].
    unsafe fn write<L: Lanes>(to: *mut Self, value: L, count: usize);
    /// Two vectors, one behind the other.
    ///
    /// # Safety
    /// As [`Lanes`].
    #[inline(always)]
    unsafe fn write_pair<L: Lanes>(to: *mut Self, first: L, second: L) {
        // SAFETY: the caller's promise.
        unsafe {
            Self::write(to, first, LANES);
            Self::write(to.add(LANES), second, LANES);
        }
    }
}

impl ElementLanes for f32 {
    #[inline(always)]
    unsafe fn read<L: Lanes>(from: *const Self, count: usize) -> L {
        // SAFETY: the caller's promise.
        unsafe { L::load(from, count) }
    }

    #[inline(always)]
    unsafe fn write<L: Lanes>(to: *mut Self, value: L, count: usize) {
        // SAFETY: the caller's promise.
        unsafe { value.store(to, count) }
    }
}

impl ElementLanes for bf16 {
    #[inline(always)]
    unsafe fn read<L: Lanes>(from: *const Self, count: usize) -> L {
        // SAFETY: the caller's promise.
        unsafe { L::load_bf16(from, count) }
    }

    #[inline(always)]
    unsafe fn write<L: Lanes>(to: *mut Self, value: L, count: usize) {
        // SAFETY: the caller's promise.
        unsafe { value.store_bf16(to, count) }
    }

    #[inline(always)]
    unsafe fn write_pair<L: Lanes>(to: *mut Self, first: L, second: L) {
        // SAFETY: the caller's promise.
        unsafe { first.store_bf16_pair(second, to) }
    }
}

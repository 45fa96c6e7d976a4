//! Lanes in plain Rust.
#![allow(unsafe_code)]
#![allow(clippy::inline_always, reason = "each is an instruction or a few")]

use half::bf16;

use super::vector::{LANES, Lanes};

/// 1.5 · 2²³: adding it rounds to an integer.
const ROUND: f32 = 12_582_912.0;

/// Plain Rust.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; LANES]);

impl Portable {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|lane| f(self.0[lane], other.0[lane])))
    }
}

impl Lanes for Portable {
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; LANES])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32, count: usize) -> Self {
        let mut lanes = [0.0; LANES];
        // SAFETY: the caller promised `count` values.
        unsafe { std::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), count.min(LANES)) };
        Self(lanes)
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, count: usize) {
        // SAFETY: the caller promised `count` places.
        unsafe { std::ptr::copy_nonoverlapping(self.0.as_ptr(), to, count.min(LANES)) };
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16, count: usize) -> Self {
        let mut lanes = [0.0; LANES];
        for (index, lane) in lanes.iter_mut().enumerate().take(count) {
            // SAFETY: the caller promised `count` values.
            let bits = unsafe { from.add(index).read_unaligned() }.to_bits();
            // Not `to_f32`, whose look at NaN would keep this from being vectorised.
            *lane = f32::from_bits(u32::from(bits) << 16);
        }
        Self(lanes)
    }

    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut bf16, count: usize) {
        for (index, lane) in self.0.into_iter().enumerate().take(count) {
            // SAFETY: the caller promised `count` places.
            unsafe { to.add(index).write_unaligned(bf16::from_f32(lane)) };
        }
    }

    #[inline(always)]
    unsafe fn store_bf16_interleaved(self, next: Self, to: *mut bf16) {
        for (lane, (first, second)) in self.0.into_iter().zip(next.0).enumerate() {
            // SAFETY: the caller promised twice as many places as there are lanes.
            unsafe {
                to.add(2 * lane).cast::<[bf16; 2]>().write_unaligned([first, second].map(bf16::from_f32));
            }
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        self.zip(factor, |a, b| a * b).zip(term, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    unsafe fn reciprocal(self) -> Self {
        Self(self.0.map(|x| 1.0 / x))
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        Self(self.0.map(|x| if x.abs() < 4_194_304.0 { (x + ROUND) - ROUND } else { x }))
    }

    #[inline(always)]
    unsafe fn scale(self, exponent: Self) -> Self {
        // A conversion to integers saturates in Rust and would not vectorise; the sum's bits hold n already.
        let bits = |n: f32| (n.clamp(-127.0, 127.0) + ROUND).to_bits().wrapping_sub(ROUND.to_bits());
        self.zip(exponent, |x, n| x * f32::from_bits(bits(n).wrapping_add(127) << 23))
    }

    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        self.0.into_iter().fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a })
    }
}

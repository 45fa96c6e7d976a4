//! Sixteen f32 at once: AVX-512, or plain Rust that any compiler target vectorises as it can.
#![allow(unsafe_code, clippy::inline_always)]

use half::bf16;

/// Values handled together.
pub(crate) const LANES: usize = 16;

/// A vector of [`LANES`] f32.
///
/// # Safety
/// Implementors' functions may only run where their instructions exist; pointers must be valid for as many values
/// as are read or written, of any alignment.
pub trait Lanes: Copy {
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32, count: usize) -> Self;
    unsafe fn store(self, to: *mut f32, count: usize);
    unsafe fn load_bf16(from: *const bf16, count: usize) -> Self;
    unsafe fn store_bf16(self, to: *mut bf16, count: usize);
    /// All of this, then all of `next`.
    #[inline(always)]
    unsafe fn store_bf16_pair(self, next: Self, to: *mut bf16) {
        // SAFETY: as the caller promised.
        unsafe {
            self.store_bf16(to, LANES);
            next.store_bf16(to.add(LANES), LANES);
        }
    }
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// `self · factor + term`
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self;
    /// The larger; `other` where `self` is NaN.
    unsafe fn max(self, other: Self) -> Self;
    unsafe fn min(self, other: Self) -> Self;
    /// Within 2⁻¹⁴.
    unsafe fn reciprocal(self) -> Self;
    /// To the nearest integer.
    unsafe fn round(self) -> Self;
    /// `self · 2^exponent` for integers; about 0 where that is below −126, at least 2¹²⁷ where it is above.
    unsafe fn scale(self, exponent: Self) -> Self;
    /// The largest lane.
    unsafe fn largest(self) -> f32;

    /// 2^x within 3e-6; about 0 for x below −126, at least 2¹²⁷ for x above 127. x is finite.
    #[inline(always)]
    unsafe fn exp2(self) -> Self {
        // SAFETY: as the caller promised.
        unsafe {
            let whole = self.round();
            let f = self.sub(whole);
            // Taylor's series of 2^f on [−½, ½], the last coefficients adjusted to the interval
            let p = Self::splat(9.618_129e-3).mul_add(f, Self::splat(5.550_411e-2));
            let p = p.mul_add(f, Self::splat(2.402_265e-1));
            let p = p.mul_add(f, Self::splat(6.931_472e-1));
            p.mul_add(f, Self::splat(1.0)).scale(whole)
        }
    }

    /// 1 / (1 + e^−(factor · x)).
    #[inline(always)]
    unsafe fn sigmoid(self, factor: f32) -> Self {
        // SAFETY: as the caller promised.
        unsafe {
            let power = self.mul(Self::splat(-factor * std::f32::consts::LOG2_E)).exp2();
            power.add(Self::splat(1.0)).reciprocal()
        }
    }

    /// x · Φ(x), the exact form within 2⁻¹³ of x.
    #[inline(always)]
    unsafe fn gelu(self) -> Self {
        // SAFETY: as the caller promised.
        unsafe {
            let x = self.mul(Self::splat(std::f32::consts::FRAC_1_SQRT_2));
            let x = x.max(Self::splat(-4.0)).min(Self::splat(4.0));
            let x2 = x.mul(x);
            let p = Self::splat(-2.726_142_3e-10).mul_add(x2, Self::splat(2.770_681_4e-8));
            let p = p.mul_add(x2, Self::splat(-2.101_024e-6));
            let p = p.mul_add(x2, Self::splat(-5.692_506_4e-5));
            let p = p.mul_add(x2, Self::splat(-7.349_906_3e-4));
            let p = p.mul_add(x2, Self::splat(-2.954_599_8e-3));
            let p = p.mul_add(x2, Self::splat(-1.609_603_3e-2));
            let q = Self::splat(-1.456_607_2e-5).mul_add(x2, Self::splat(-2.133_740_6e-4));
            let q = q.mul_add(x2, Self::splat(-1.682_827e-3));
            let q = q.mul_add(x2, Self::splat(-7.373_329e-3));
            let q = q.mul_add(x2, Self::splat(-1.426_473_9e-2));
            let erf = x.mul(p).mul(q.reciprocal());
            let half = self.mul(Self::splat(0.5));
            half.mul_add(erf, half)
        }
    }
}

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
        const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³: adding it rounds to an integer
        Self(self.0.map(|x| if x.abs() < 4_194_304.0 { (x + ROUND) - ROUND } else { x }))
    }

    #[inline(always)]
    unsafe fn scale(self, exponent: Self) -> Self {
        self.zip(exponent, |x, n| x * f32::from_bits(((n.clamp(-127.0, 127.0) as i32 + 127) as u32) << 23))
    }

    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        self.0.into_iter().fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a })
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::Avx512;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256bh, __m256i, __m512, __m512bh, __m512i, __mmask16, _CMP_UNORD_Q, _mm256_loadu_si256,
        _mm256_mask_storeu_epi16, _mm256_maskz_loadu_epi16, _mm256_storeu_si256, _mm512_add_epi32,
        _mm512_add_ps, _mm512_and_si512, _mm512_castps_si512, _mm512_castsi512_ps, _mm512_cmp_ps_mask,
        _mm512_cvtepi32_epi16, _mm512_cvtepu16_epi32, _mm512_cvtne2ps_pbh, _mm512_cvtneps_pbh,
        _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mask_mov_epi32, _mm512_mask_storeu_ps,
        _mm512_maskz_loadu_ps, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps, _mm512_rcp14_ps,
        _mm512_reduce_max_ps, _mm512_roundscale_ps, _mm512_scalef_ps, _mm512_set1_epi32, _mm512_set1_ps,
        _mm512_slli_epi32, _mm512_srli_epi32, _mm512_storeu_ps, _mm512_storeu_si512, _mm512_sub_ps,
    };

    use half::bf16;

    use super::{LANES, Lanes};

    /// AVX-512 F, BW, DQ and VL, and with `ROUNDS` the instruction that rounds to bf16.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512<const ROUNDS: bool>(__m512);

    fn mask(count: usize) -> __mmask16 {
        ((1u32 << count.min(LANES)) - 1) as __mmask16
    }

    // SAFETY of every block: the trait's promise that these instructions exist and pointers hold `count` values.
    #[allow(clippy::undocumented_unsafe_blocks)]
    impl<const ROUNDS: bool> Lanes for Avx512<ROUNDS> {
        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            unsafe { Self(_mm512_set1_ps(value)) }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32, count: usize) -> Self {
            unsafe {
                if count >= LANES {
                    Self(_mm512_loadu_ps(from))
                } else {
                    Self(_mm512_maskz_loadu_ps(mask(count), from))
                }
            }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32, count: usize) {
            unsafe {
                if count >= LANES {
                    _mm512_storeu_ps(to, self.0);
                } else {
                    _mm512_mask_storeu_ps(to, mask(count), self.0);
                }
            }
        }

        #[inline(always)]
        unsafe fn load_bf16(from: *const bf16, count: usize) -> Self {
            unsafe {
                let bits = if count >= LANES {
                    _mm256_loadu_si256(from.cast())
                } else {
                    _mm256_maskz_loadu_epi16(mask(count), from.cast())
                };
                Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits))))
            }
        }

        #[inline(always)]
        unsafe fn store_bf16(self, to: *mut bf16, count: usize) {
            unsafe {
                let halves = if ROUNDS {
                    std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(self.0))
                } else {
                    // To nearest even, by adding to the bits; NaN apart, which that could turn into zero.
                    let bits = _mm512_castps_si512(self.0);
                    let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
                    let rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
                    let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self.0, self.0);
                    let rounded = _mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(0x7fc0_0000));
                    _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(rounded))
                };
                if count >= LANES {
                    _mm256_storeu_si256(to.cast(), halves);
                } else {
                    _mm256_mask_storeu_epi16(to.cast(), mask(count), halves);
                }
            }
        }

        #[inline(always)]
        unsafe fn store_bf16_pair(self, next: Self, to: *mut bf16) {
            unsafe {
                if ROUNDS {
                    let both = _mm512_cvtne2ps_pbh(next.0, self.0);
                    _mm512_storeu_si512(to.cast(), std::mem::transmute::<__m512bh, __m512i>(both));
                } else {
                    self.store_bf16(to, LANES);
                    next.store_bf16(to.add(LANES), LANES);
                }
            }
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            unsafe { Self(_mm512_add_ps(self.0, other.0)) }
        }

        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            unsafe { Self(_mm512_sub_ps(self.0, other.0)) }
        }

        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            unsafe { Self(_mm512_mul_ps(self.0, other.0)) }
        }

        #[inline(always)]
        unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
            unsafe { Self(_mm512_fmadd_ps(self.0, factor.0, term.0)) }
        }

        #[inline(always)]
        unsafe fn max(self, other: Self) -> Self {
            unsafe { Self(_mm512_max_ps(self.0, other.0)) }
        }

        #[inline(always)]
        unsafe fn min(self, other: Self) -> Self {
            unsafe { Self(_mm512_min_ps(self.0, other.0)) }
        }

        #[inline(always)]
        unsafe fn reciprocal(self) -> Self {
            unsafe { Self(_mm512_rcp14_ps(self.0)) }
        }

        #[inline(always)]
        unsafe fn round(self) -> Self {
            unsafe { Self(_mm512_roundscale_ps::<0>(self.0)) }
        }

        #[inline(always)]
        unsafe fn scale(self, exponent: Self) -> Self {
            unsafe { Self(_mm512_scalef_ps(self.0, exponent.0)) }
        }

        #[inline(always)]
        unsafe fn largest(self) -> f32 {
            unsafe { _mm512_reduce_max_ps(self.0) }
        }
    }
}

/// Calls a function generic over [`Lanes`], and perhaps one more type, compiled for an instruction set.
macro_rules! with_lanes {
    ($isa:expr, $function:ident $(<$element:ident>)? ($($arg:ident: $ty:ty = $value:expr),* $(,)?)) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
        unsafe fn avx512bf16 $(<$element: $crate::tiled::finish::Element>)? ($($arg: $ty),*) {
            // SAFETY: the caller's promises are passed on.
            unsafe { $function::<$crate::tiled::lanes::Avx512<true> $(, $element)?>($($arg),*) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
        unsafe fn avx512 $(<$element: $crate::tiled::finish::Element>)? ($($arg: $ty),*) {
            // SAFETY: the caller's promises are passed on.
            unsafe { $function::<$crate::tiled::lanes::Avx512<false> $(, $element)?>($($arg),*) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        unsafe fn avx2 $(<$element: $crate::tiled::finish::Element>)? ($($arg: $ty),*) {
            // SAFETY: the caller's promises are passed on.
            unsafe { $function::<$crate::tiled::lanes::Portable $(, $element)?>($($arg),*) }
        }
        match $isa {
            #[cfg(target_arch = "x86_64")]
            $crate::Isa::Amx | $crate::Isa::Avx512Bf16 => avx512bf16 $(::<$element>)? ($($value),*),
            #[cfg(target_arch = "x86_64")]
            $crate::Isa::Avx512 => avx512 $(::<$element>)? ($($value),*),
            #[cfg(target_arch = "x86_64")]
            $crate::Isa::Avx2 => avx2 $(::<$element>)? ($($value),*),
            _ => $function::<$crate::tiled::lanes::Portable $(, $element)?>($($value),*),
        }
    }};
}
pub(crate) use with_lanes;

//! Lanes of AVX2 and AVX-512.
#![allow(unsafe_code)]
#![allow(clippy::inline_always, reason = "each is an instruction or a few")]

use std::arch::x86_64::{
    __m256, __m256bh, __m256i, __m512, __m512bh, __m512i, __mmask16, _CMP_UNORD_Q, _MM_FROUND_NO_EXC,
    _MM_FROUND_TO_NEAREST_INT, _MM_FROUND_TO_NEG_INF, _mm_loadu_si128, _mm256_add_epi32, _mm256_add_ps,
    _mm256_and_si256, _mm256_blendv_ps, _mm256_castps_si256, _mm256_castsi256_ps, _mm256_cmp_ps,
    _mm256_cvtepu16_epi32, _mm256_cvtps_epi32, _mm256_div_ps, _mm256_fmadd_ps, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_mask_storeu_epi16, _mm256_maskz_loadu_epi16, _mm256_max_ps, _mm256_min_ps,
    _mm256_mul_ps, _mm256_or_si256, _mm256_packus_epi32, _mm256_permute4x64_epi64, _mm256_round_ps,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_slli_epi32, _mm256_srli_epi32, _mm256_storeu_ps,
    _mm256_storeu_si256, _mm256_sub_ps, _mm512_add_epi32, _mm512_add_ps, _mm512_and_si512,
    _mm512_castps_si512, _mm512_castsi512_ps, _mm512_cmp_ps_mask, _mm512_cvtepi32_epi16,
    _mm512_cvtepu16_epi32, _mm512_cvtne2ps_pbh, _mm512_cvtneps_pbh, _mm512_div_ps, _mm512_fmadd_ps,
    _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_mov_epi32, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps,
    _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps, _mm512_or_si512, _mm512_permutexvar_epi16, _mm512_rcp14_ps,
    _mm512_reduce_max_ps, _mm512_reduce_ps, _mm512_roundscale_ps, _mm512_scalef_ps, _mm512_set1_epi32,
    _mm512_set1_ps, _mm512_slli_epi32, _mm512_srli_epi32, _mm512_storeu_ps, _mm512_storeu_si512,
    _mm512_sub_ps,
};

use half::bf16;

use super::vector::{LANES, Lanes};

/// Indices that interleave two vectors of bf16 stored one behind the other.
static TURNS: [u16; 2 * LANES] = {
    let mut places = [0; 2 * LANES];
    let mut lane = 0;
    while lane < LANES {
        places[2 * lane] = lane as u16;
        places[2 * lane + 1] = (LANES + lane) as u16;
        lane += 1;
    }
    places
};
/// Leaves what rounding down takes off.
const DOWN: i32 = _MM_FROUND_TO_NEG_INF;
/// Rounds to the nearest integer.
const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

/// AVX-512 F, BW, DQ and VL, and with `ROUNDS` the instruction that rounds to bf16.
#[derive(Clone, Copy)]
pub(crate) struct Avx512<const ROUNDS: bool>(__m512);

/// AVX2 and FMA: the first eight lanes and the others.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256, __m256);

// SAFETY of every block: the trait's promise that these instructions exist and pointers hold `count` values.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Lanes for Avx2 {
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        let values = unsafe { _mm256_set1_ps(value) };
        Self(values, values)
    }

    // Nothing here calls itself for a part: what recurs is not inlined.

    #[inline(always)]
    unsafe fn load(from: *const f32, count: usize) -> Self {
        unsafe {
            let mut lanes = [0f32; LANES];
            let mut from = from;
            if count < LANES {
                std::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), count);
                from = lanes.as_ptr();
            }
            Self(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8)))
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, count: usize) {
        unsafe {
            let mut lanes = [0f32; LANES];
            let at = if count < LANES { lanes.as_mut_ptr() } else { to };
            _mm256_storeu_ps(at, self.0);
            _mm256_storeu_ps(at.add(8), self.1);
            if count < LANES {
                std::ptr::copy_nonoverlapping(at, to, count);
            }
        }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16, count: usize) -> Self {
        unsafe {
            let mut halves = [bf16::ZERO; LANES];
            let mut from = from;
            if count < LANES {
                std::ptr::copy_nonoverlapping(from, halves.as_mut_ptr(), count);
                from = halves.as_ptr();
            }
            Self(widened(from), widened(from.add(8)))
        }
    }

    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut bf16, count: usize) {
        unsafe {
            // Packing goes by halves of registers: the middle quarters change places again.
            let packed = _mm256_packus_epi32(rounded(self.0), rounded(self.1));
            let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(packed);
            let mut halves = [bf16::ZERO; LANES];
            let at = if count < LANES { halves.as_mut_ptr() } else { to };
            _mm256_storeu_si256(at.cast(), packed);
            if count < LANES {
                std::ptr::copy_nonoverlapping(at, to, count);
            }
        }
    }

    #[inline(always)]
    unsafe fn store_bf16_interleaved(self, next: Self, to: *mut bf16) {
        unsafe {
            let first = _mm256_or_si256(rounded(self.0), _mm256_slli_epi32::<16>(rounded(next.0)));
            let second = _mm256_or_si256(rounded(self.1), _mm256_slli_epi32::<16>(rounded(next.1)));
            _mm256_storeu_si256(to.cast(), first);
            _mm256_storeu_si256(to.add(LANES).cast(), second);
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        unsafe { Self(_mm256_add_ps(self.0, other.0), _mm256_add_ps(self.1, other.1)) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        unsafe { Self(_mm256_sub_ps(self.0, other.0), _mm256_sub_ps(self.1, other.1)) }
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        unsafe { Self(_mm256_mul_ps(self.0, other.0), _mm256_mul_ps(self.1, other.1)) }
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        unsafe { Self(_mm256_div_ps(self.0, other.0), _mm256_div_ps(self.1, other.1)) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        unsafe { Self(_mm256_fmadd_ps(self.0, factor.0, term.0), _mm256_fmadd_ps(self.1, factor.1, term.1)) }
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        unsafe { Self(_mm256_max_ps(self.0, other.0), _mm256_max_ps(self.1, other.1)) }
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        unsafe { Self(_mm256_min_ps(self.0, other.0), _mm256_min_ps(self.1, other.1)) }
    }

    #[inline(always)]
    unsafe fn reciprocal(self) -> Self {
        // There is an estimate, but of twelve bits only.
        unsafe { Self::splat(1.0).div(self) }
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        unsafe { Self(_mm256_round_ps::<NEAREST>(self.0), _mm256_round_ps::<NEAREST>(self.1)) }
    }

    #[inline(always)]
    unsafe fn scale(self, exponent: Self) -> Self {
        unsafe { Self(scaled(self.0, exponent.0), scaled(self.1, exponent.1)) }
    }

    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        unsafe {
            let mut lanes = [0f32; 8];
            _mm256_storeu_ps(lanes.as_mut_ptr(), _mm256_max_ps(self.0, self.1));
            lanes.into_iter().fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a })
        }
    }
}

// Functions and no closures: instructions are not inlined into a closure.

#[inline(always)]
unsafe fn widened(from: *const bf16) -> __m256 {
    // SAFETY: as the caller promised, eight values.
    unsafe {
        let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
    }
}

/// The bits of bf16, to nearest even, by adding to the bits; NaN apart, which that could turn into zero.
#[inline(always)]
unsafe fn rounded(values: __m256) -> __m256i {
    // SAFETY: as the caller promised.
    unsafe {
        let bits = _mm256_castps_si256(values);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let sums = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
        let nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(values, values);
        let quiet = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc0_0000));
        let chosen = _mm256_blendv_ps(_mm256_castsi256_ps(sums), quiet, nan);
        _mm256_srli_epi32::<16>(_mm256_castps_si256(chosen))
    }
}

/// As [`rounded`].
#[inline(always)]
unsafe fn rounded_512(values: __m512) -> __m512i {
    // SAFETY: as the caller promised.
    unsafe {
        let bits = _mm512_castps_si512(values);
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let sums = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(values, values);
        let chosen = _mm512_mask_mov_epi32(sums, nan, _mm512_set1_epi32(0x7fc0_0000));
        _mm512_srli_epi32::<16>(chosen)
    }
}

/// `values · 2^exponents`, these taken as −127 where they are below and as 127 where they are above.
#[inline(always)]
unsafe fn scaled(values: __m256, exponents: __m256) -> __m256 {
    // SAFETY: as the caller promised.
    unsafe {
        let n = _mm256_min_ps(_mm256_max_ps(exponents, _mm256_set1_ps(-127.0)), _mm256_set1_ps(127.0));
        let n = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
        _mm256_mul_ps(values, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(n)))
    }
}

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
                _mm512_cvtepi32_epi16(rounded_512(self.0))
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
    unsafe fn store_bf16_interleaved(self, next: Self, to: *mut bf16) {
        unsafe {
            let both = if ROUNDS {
                // All of one, then all of the other: lanes take turns behind a permutation.
                let both = _mm512_cvtne2ps_pbh(next.0, self.0);
                let turns = _mm512_loadu_si512(TURNS.as_ptr().cast());
                _mm512_permutexvar_epi16(turns, std::mem::transmute::<__m512bh, __m512i>(both))
            } else {
                _mm512_or_si512(rounded_512(self.0), _mm512_slli_epi32::<16>(rounded_512(next.0)))
            };
            _mm512_storeu_si512(to.cast(), both);
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
    unsafe fn div(self, other: Self) -> Self {
        unsafe { Self(_mm512_div_ps(self.0, other.0)) }
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

    // Fewer instructions than in general: one gives the fraction, and the one that scales rounds its exponent down.
    #[inline(always)]
    unsafe fn exp2(self) -> Self {
        unsafe {
            let f = Self(_mm512_reduce_ps::<DOWN>(self.0));
            // The polynomial with the least relative error on [0, 1] that is 1 at 0
            let p = Self::splat(1.342_668_5e-2).mul_add(f, Self::splat(5.224_247_3e-2));
            let p = p.mul_add(f, Self::splat(2.412_802e-1));
            let p = p.mul_add(f, Self::splat(6.930_448_4e-1));
            p.mul_add(f, Self::splat(1.0)).scale(self)
        }
    }
}

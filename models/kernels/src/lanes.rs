//! Sixteen f32 at once: AVX-512, AVX2, or plain Rust that any compiler target vectorises as it can. Functions come twice:
//! for results that will be rounded to bf16, and to f32's precision.
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
    /// This and `next` in turns: lane 0 of both, lane 1 of both, and so on.
    unsafe fn store_bf16_interleaved(self, next: Self, to: *mut bf16);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    /// `self · factor + term`
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self;
    /// The larger; `other` where either is NaN, as for `min`.
    unsafe fn max(self, other: Self) -> Self;
    unsafe fn min(self, other: Self) -> Self;
    /// Within 2⁻¹⁴.
    unsafe fn reciprocal(self) -> Self;
    /// To the nearest integer.
    unsafe fn round(self) -> Self;
    /// `self · 2^exponent` for integers from −126 to 127, and as if it was one of these, or better, elsewhere.
    unsafe fn scale(self, exponent: Self) -> Self;
    /// The largest lane.
    unsafe fn largest(self) -> f32;

    /// 2^x within 3e-6 for x in [−126, 127], about 0 below and at least 2¹²⁷ above; NaN for NaN.
    #[inline(always)]
    unsafe fn exp2(self) -> Self {
        // SAFETY: as the caller promised.
        unsafe {
            let x = Self::splat(127.0).min(Self::splat(-126.0).max(self));
            let whole = x.round();
            let f = x.sub(whole);
            // The polynomial with the least relative error on [−½, ½] that is 1 at 0
            let p = Self::splat(9.582_85e-3).mul_add(f, Self::splat(5.590_642e-2));
            let p = p.mul_add(f, Self::splat(2.402_409_9e-1));
            let p = p.mul_add(f, Self::splat(6.931_241_9e-1));
            p.mul_add(f, Self::splat(1.0)).scale(whole)
        }
    }

    /// 2^x to f32's precision, within 2 ulp, for x in [−126, 127]; NaN for NaN.
    #[inline(always)]
    unsafe fn exp2_f32(self) -> Self {
        // SAFETY: as the caller promised.
        unsafe {
            let whole = self.round();
            self.sub(whole).exp2_near_zero().scale(whole)
        }
    }

    /// 2^x within 1 ulp for x in [−½, ½].
    #[inline(always)]
    unsafe fn exp2_near_zero(self) -> Self {
        // SAFETY: as the caller promised.
        unsafe {
            let p = Self::splat(1.535_336_2e-4).mul_add(self, Self::splat(1.339_887_4e-3));
            let p = p.mul_add(self, Self::splat(9.618_437e-3));
            let p = p.mul_add(self, Self::splat(5.550_332_5e-2));
            let p = p.mul_add(self, Self::splat(2.402_264_8e-1));
            let p = p.mul_add(self, Self::splat(6.931_472e-1));
            p.mul_add(self, Self::splat(1.0))
        }
    }

    /// e^x to f32's precision; x is taken as −87.3 where it is below, as 88.3 where it is above. NaN for NaN.
    #[inline(always)]
    unsafe fn exp_f32(self) -> Self {
        // SAFETY: as the caller promised.
        unsafe {
            let x = Self::splat(88.3).min(Self::splat(-87.3).max(self));
            let whole = x.mul(Self::splat(std::f32::consts::LOG2_E)).round();
            // ln 2 in two parts, of which the first has few enough bits that its product is exact
            let rest = whole.mul_add(Self::splat(-0.693_359_375), x);
            let rest = whole.mul_add(Self::splat(2.121_944_4e-4), rest);
            rest.mul(Self::splat(std::f32::consts::LOG2_E)).exp2_near_zero().scale(whole)
        }
    }

    /// 1 / (1 + e^−(factor · x)) to f32's precision, but for the rounding of `factor · x`; at least 4e-39.
    #[inline(always)]
    unsafe fn sigmoid_f32(self, factor: f32) -> Self {
        // SAFETY: as the caller promised.
        unsafe {
            let one = Self::splat(1.0);
            one.div(self.mul(Self::splat(-factor)).exp_f32().add(one))
        }
    }

    /// x · Φ(x), the exact form within 2⁻²¹ of x.
    #[inline(always)]
    unsafe fn gelu_f32(self) -> Self {
        // SAFETY: as the caller promised.
        unsafe {
            let (numerator, denominator) = self.erf_of_half();
            let half = self.mul(Self::splat(0.5));
            half.mul_add(numerator.div(denominator), half)
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
            let (numerator, denominator) = self.erf_of_half();
            let erf = numerator.mul(denominator.reciprocal());
            let half = self.mul(Self::splat(0.5));
            half.mul_add(erf, half)
        }
    }

    /// erf(x / √2) within 3 ulp, as numerator and denominator: a rational approximation on [−4, 4].
    #[inline(always)]
    unsafe fn erf_of_half(self) -> (Self, Self) {
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
            (x.mul(p), q)
        }
    }
}

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

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
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
        _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_mov_epi32, _mm512_mask_storeu_ps,
        _mm512_maskz_loadu_ps, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps, _mm512_or_si512,
        _mm512_permutexvar_epi16, _mm512_rcp14_ps, _mm512_reduce_max_ps, _mm512_reduce_ps,
        _mm512_roundscale_ps, _mm512_scalef_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_slli_epi32,
        _mm512_srli_epi32, _mm512_storeu_ps, _mm512_storeu_si512, _mm512_sub_ps,
    };

    use half::bf16;

    use super::{LANES, Lanes};

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
            unsafe {
                Self(_mm256_fmadd_ps(self.0, factor.0, term.0), _mm256_fmadd_ps(self.1, factor.1, term.1))
            }
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
}

/// Calls a function generic over [`Lanes`], and perhaps one more type, compiled for an instruction set.
macro_rules! with_lanes {
    ($isa:expr, $function:ident $(<$element:ident>)? ($($arg:ident: $ty:ty = $value:expr),* $(,)?)) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
        unsafe fn avx512bf16 $(<$element: $crate::tiled::finish::Element>)? ($($arg: $ty),*) {
            // SAFETY: the caller's promises are passed on.
            unsafe { $function::<$crate::lanes::Avx512<true> $(, $element)?>($($arg),*) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
        unsafe fn avx512 $(<$element: $crate::tiled::finish::Element>)? ($($arg: $ty),*) {
            // SAFETY: the caller's promises are passed on.
            unsafe { $function::<$crate::lanes::Avx512<false> $(, $element)?>($($arg),*) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        unsafe fn avx2 $(<$element: $crate::tiled::finish::Element>)? ($($arg: $ty),*) {
            // SAFETY: the caller's promises are passed on.
            unsafe { $function::<$crate::lanes::Avx2 $(, $element)?>($($arg),*) }
        }
        match $isa {
            #[cfg(target_arch = "x86_64")]
            $crate::Isa::Amx | $crate::Isa::Avx512Bf16 => avx512bf16 $(::<$element>)? ($($value),*),
            #[cfg(target_arch = "x86_64")]
            $crate::Isa::Avx512 => avx512 $(::<$element>)? ($($value),*),
            #[cfg(target_arch = "x86_64")]
            $crate::Isa::Avx2 => avx2 $(::<$element>)? ($($value),*),
            _ => $function::<$crate::lanes::Portable $(, $element)?>($($value),*),
        }
    }};
}
pub(crate) use with_lanes;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    /// All functions of `x`: each `[2^x, e^x, sigmoid, GELU]` to f32's precision, then 2^x, sigmoid and GELU for bf16.
    #[inline(always)]
    unsafe fn functions<L: Lanes>(x: &[f32], out: &mut [[f32; LANES]; 7]) {
        // SAFETY: whole lanes.
        unsafe {
            let x = L::load(x.as_ptr(), LANES);
            let made = [
                x.exp2_f32(),
                x.exp_f32(),
                x.sigmoid_f32(1.702),
                x.gelu_f32(),
                x.exp2(),
                x.sigmoid(1.702),
                x.gelu(),
            ];
            for (made, out) in made.into_iter().zip(out) {
                made.store(out.as_mut_ptr(), LANES);
            }
        }
    }

    fn of(isa: Isa, x: [f32; LANES]) -> [[f32; LANES]; 7] {
        let mut out = [[0f32; LANES]; 7];
        // SAFETY: `isa` is one this processor has.
        unsafe { with_lanes!(isa, functions(x: &[f32] = &x, out: &mut [[f32; LANES]; 7] = &mut out)) };
        out
    }

    /// Φ(x) by adding up Simpson's rule on the density.
    fn normal(x: f64) -> f64 {
        let steps = 400;
        let width = x / f64::from(steps);
        let density = |t: f64| (-t * t / 2.0).exp();
        let area = |step: i32| {
            let (a, b) = (f64::from(step) * width, f64::from(step + 1) * width);
            (density(a) + 4.0 * density(f64::midpoint(a, b)) + density(b)) * width / 6.0
        };
        0.5 + (0..steps).map(area).sum::<f64>() / (2.0 * std::f64::consts::PI).sqrt()
    }

    #[test]
    fn functions_hold_over_their_range() {
        for isa in Isa::available() {
            for step in -4000..4000i32 {
                let x: [f32; LANES] =
                    std::array::from_fn(|lane| (step as f32 + lane as f32 / LANES as f32) * 0.0215);
                let made = of(isa, x);
                for lane in 0..LANES {
                    let (x, found) = (f64::from(x[lane]), made.map(|values| f64::from(values[lane])));
                    let sigmoid = 1.0 / (1.0 + (-1.702 * x).exp());
                    let relative = |index: usize, wanted: f64, bound: f64| {
                        let error = (found[index] - wanted).abs();
                        // Below f32's normal numbers there is no relative precision.
                        assert!(
                            error <= wanted.abs() * bound + 1e-37,
                            "{isa:?} function {index} of {x}: {}, not {wanted}",
                            found[index]
                        );
                    };
                    relative(0, x.exp2(), 2f64.powi(-22));
                    relative(1, x.exp(), 2f64.powi(-22));
                    // The argument's own rounding counts as often as the exponent is large.
                    relative(2, sigmoid, 2f64.powi(-22) + x.abs() * 2f64.powi(-23));
                    relative(4, x.exp2(), 3e-6);
                    relative(5, sigmoid, 2f64.powi(-13) + x.abs() * 2f64.powi(-21));
                    if lane == 0 && x.abs() < 8.0 {
                        let gelu = x * normal(x);
                        assert!((found[3] - gelu).abs() <= x.abs() * 2f64.powi(-21), "{isa:?} GELU of {x}");
                        assert!((found[6] - gelu).abs() <= x.abs() * 2f64.powi(-13), "{isa:?} GELU of {x}");
                    }
                }
            }
            let [exp2, exp, sigmoid, _, exp2_16, sigmoid_16, _] = of(isa, [f32::NAN; LANES]);
            let nan = [exp2, exp, sigmoid, exp2_16, sigmoid_16].map(|values| values[0].is_nan());
            assert_eq!(nan, [true; 5], "{isa:?}");
            for x in [-128.0, -1e9, -1e38, f32::NEG_INFINITY] {
                let [_, exp, sigmoid, _, exp2, sigmoid_16, _] = of(isa, [x; LANES]);
                let least = [exp, sigmoid, exp2, sigmoid_16].map(|values| values[0]);
                assert!(least.iter().all(|y| (0.0..1.3e-38).contains(y)), "{isa:?}, {x}: {least:?}");
                let [_, exp, sigmoid, _, exp2, sigmoid_16, _] = of(isa, [-x; LANES]);
                assert!(exp[0] > 1e38 && exp2[0] > 1e38, "{isa:?}, {}", -x);
                assert!(sigmoid[0] == 1.0 && (sigmoid_16[0] - 1.0).abs() < 1e-4, "{isa:?}, {}", -x);
            }
        }
    }
}

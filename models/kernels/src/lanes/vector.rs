//! What a vector of [`LANES`] f32 can do, and the functions made of that.
#![allow(unsafe_code)]
#![allow(clippy::inline_always, reason = "generic over lanes, compiled into each variant")]

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

    /// Itself, times `slopes` where it is below zero; NaN for NaN.
    #[inline(always)]
    unsafe fn sloped(self, slopes: Self) -> Self {
        // SAFETY: as the caller promised.
        unsafe {
            let zero = Self::splat(0.0);
            // One of the two is zero, so that the sum is not rounded again.
            zero.min(self).mul_add(slopes, zero.max(self))
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::lanes::with_lanes;

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

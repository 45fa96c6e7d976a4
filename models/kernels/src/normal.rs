//! Normal numbers from a counter, each of its place alone: Philox (Salmon et al. 2011) and Box–Muller's sines in f32's
//! precision, where they are drawn by the million.
#![allow(unsafe_code)]

use crate::isa::multiversion;

/// The low half of a word.
const LOW: u64 = 0xffff_ffff;
/// 2⁻³².
const UNIT: f32 = 1.0 / 4_294_967_296.0;

/// Elements that are drawn together. Two of them at a time, far apart, for a round has to wait for the one before it.
const AT_ONCE: usize = 512;

multiversion! {
    /// What a CUDA card draws for elements `first` and after of its call `call`, from a seed: within 5e-7 of the value in f64,
    /// relative, with the same bits on every processor.
    pub fn philox_normal(isa: Isa, seed: u64, call: u32, first: u32, values: &mut [f32]) {
        let (mut xs, mut ys) = ([0; AT_ONCE], [0; AT_ONCE]);
        for (chunk, values) in values.chunks_mut(AT_ONCE).enumerate() {
            let first = first.wrapping_add((chunk * AT_ONCE) as u32);
            let ((x, more_x), (y, more_y)) = (xs.split_at_mut(AT_ONCE / 2), ys.split_at_mut(AT_ONCE / 2));
            for (offset, ((x, more_x), (y, more_y))) in x.iter_mut().zip(more_x).zip(y.iter_mut().zip(more_y)).enumerate() {
                let element = first.wrapping_add(offset as u32);
                (*x, *y) = philox(seed, call, element);
                (*more_x, *more_y) = philox(seed, call, element.wrapping_add(AT_ONCE as u32 / 2));
            }
            for ((value, x), y) in values.iter_mut().zip(&xs).zip(&ys) {
                *value = minus_twice_ln(*x).sqrt() * sine(*y);
            }
        }
    }
}

/// The first two words of Philox 4x32 with 10 rounds. Words stand in the low halves of wider ones, as the products take them.
#[inline(always)]
#[allow(clippy::inline_always, reason = "compiled into each variant")]
fn philox(seed: u64, call: u32, element: u32) -> (u32, u32) {
    const MULTIPLIERS: [u64; 2] = [0xd251_1f53, 0xcd9e_8d57];
    const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];
    let mut counter = [u64::from(call), 0, u64::from(element), 0];
    let mut key = [seed as u32, (seed >> 32) as u32];
    for _ in 0..10 {
        let (a, b) = ((counter[0] & LOW) * MULTIPLIERS[0], (counter[2] & LOW) * MULTIPLIERS[1]);
        let [first, second] = key.map(u64::from);
        counter = [(b >> 32) ^ counter[1] ^ first, b, (a >> 32) ^ counter[3] ^ second, a];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    (counter[0] as u32, counter[1] as u32)
}

/// −2 ln u of u = (x + ½) / 2³².
#[inline(always)]
#[allow(clippy::inline_always, reason = "compiled into each variant")]
fn minus_twice_ln(x: u32) -> f32 {
    // Near 1, f32 holds more of what is left to it.
    -2.0 * logarithm((x as f32 + 0.5) * UNIT, (!x as f32 + 0.5) * -UNIT)
}

/// ln u of a u above 0 and up to 1, and `less`, which is u − 1.
#[inline(always)]
#[allow(clippy::inline_always, reason = "compiled into each variant")]
pub(crate) fn logarithm(u: f32, less: f32) -> f32 {
    /// √½, from which on mantissas count.
    const ROOT: u32 = 0x3f35_04f3;
    let bits = u.to_bits().wrapping_sub(ROOT) as i32;
    let exponent = bits >> 23;
    let mantissa = f32::from_bits(((bits & 0x007f_ffff) as u32).wrapping_add(ROOT));
    let over_1 = if exponent == 0 { less } else { mantissa - 1.0 };
    // ln m = 2 artanh((m − 1) / (m + 1)) by its series, up to a share of 1e-9.
    let s = over_1 / (2.0 + over_1);
    let z = s * s;
    let p = 2.0 / 11.0;
    let p = p * z + 2.0 / 9.0;
    let p = p * z + 2.0 / 7.0;
    let p = p * z + 2.0 / 5.0;
    let p = p * z + 2.0 / 3.0;
    exponent as f32 * std::f32::consts::LN_2 + (s * 2.0 + s * (z * p))
}

/// The sine of (y + ½) / 2³² of a turn, whose length is that of f32's 2π.
#[inline(always)]
#[allow(clippy::inline_always, reason = "compiled into each variant")]
fn sine(y: u32) -> f32 {
    const TURN: f64 = std::f32::consts::TAU as f64;
    const STEP: f32 = (std::f64::consts::TAU / 4_294_967_296.0) as f32;
    /// What is left to f32's.
    const MORE: f32 = ((TURN - std::f64::consts::TAU) / 4_294_967_296.0) as f32;
    // Steps from the nearest half turn, and that half turn's sign.
    let rest = ((y << 1) as i32) >> 1;
    let sign = y.wrapping_sub(rest as u32) & 0x8000_0000;
    let angle = (rest as f32 + 0.5) * STEP + y as f32 * MORE;
    // The sine's series up to a quarter turn.
    let z = angle * angle;
    let p = 1.605_904_4e-10;
    let p = p * z - 2.505_210_8e-8;
    let p = p * z + 2.755_731_9e-6;
    let p = p * z - 1.984_127e-4;
    let p = p * z + 8.333_333_6e-3;
    let p = p * z - 1.666_666_7e-1;
    let sine = angle + angle * (z * p);
    f32::from_bits(sine.to_bits() ^ sign)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    /// In f64, as cuRAND defines it.
    fn exact(x: u32, y: u32) -> f64 {
        let u = (f64::from(x) + 0.5) / 4_294_967_296.0;
        let angle = (f64::from(y) + 0.5) * f64::from(std::f32::consts::TAU) / 4_294_967_296.0;
        (-2.0 * u.ln()).sqrt() * angle.sin()
    }

    #[test]
    fn values_are_the_definitions() {
        let compare = |found: f32, x, y| {
            let error = (f64::from(found) / exact(x, y) - 1.0).abs();
            assert!(error < 5e-7, "of {x} and {y}: {found}, not {}", exact(x, y));
        };
        let (seed, call, first) = (0x1234_5678_9abc_def0, 3, u32::MAX - 1000);
        let mut values = vec![f32::NAN; 1 << 16];
        philox_normal(Isa::current(), seed, call, first, &mut values);
        for (offset, value) in values.iter().enumerate() {
            let (x, y) = philox(seed, call, first.wrapping_add(offset as u32));
            compare(*value, x, y);
        }
        // Where exponents change, next to 0 and 1, and next to each quarter turn.
        let ends =
            |middle: u32| (0..3).flat_map(move |off| [middle.wrapping_add(off), middle.wrapping_sub(off)]);
        for x in (16..32).map(|bit| 1 << bit).chain([0, 0xb504_f334, 0xb504_f000]).flat_map(ends) {
            for y in (0..4).map(|quarter| quarter << 30).flat_map(ends) {
                compare(minus_twice_ln(x).sqrt() * sine(y), x, y);
            }
        }
    }

    #[test]
    fn every_processor_draws_the_same_bits() {
        let draw = |isa| {
            let mut values = vec![f32::NAN; 1000];
            philox_normal(isa, 42, 0, 7, &mut values);
            values
        };
        let wanted = draw(Isa::Portable);
        for isa in Isa::available() {
            assert_eq!(draw(isa), wanted, "{}", isa.name());
        }
        let mut alone = [f32::NAN];
        philox_normal(Isa::current(), 42, 0, 7 + 998, &mut alone);
        assert_eq!(alone[0], wanted[998], "whatever stands beside it");
    }
}

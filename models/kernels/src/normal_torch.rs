//! Normal numbers as torch draws them on a CPU: the Mersenne Twister (Matsumoto & Nishimura 1998) and Box–Muller in blocks of
//! 16, in f32's precision, where they are drawn by the million.
#![allow(unsafe_code)]

use crate::isa::multiversion;
use crate::normal::logarithm;

/// Words of the twister's state.
const STATE: usize = 624;
/// How far a word's other source lies ahead of it.
const AHEAD: usize = 397;
/// How far behind it, once those ahead are those of the next state.
const BEHIND: usize = STATE - AHEAD;
/// Cosines, then sines.
const BLOCK: usize = 16;
const HALF: usize = BLOCK / 2;

/// Elements from `first` on of `torch.randn(count)` from a new generator: within 1e-6 of the value in f64, with the same bits on
/// every processor. Words before them have to be gone through, which takes a tenth of the time that elements take.
///
/// # Panics
/// If `count` is less than 16, which torch draws in another way; if `first` is no multiple of 624; if there are not so many.
pub fn torch_normal(isa: crate::Isa, seed: u32, count: usize, first: usize, values: &mut [f32]) {
    let end = first.checked_add(values.len()).filter(|end| *end <= count);
    let fits = count >= BLOCK && first.is_multiple_of(STATE);
    assert!(fits && end.is_some(), "{} from {first} on of {count}", values.len());
    draw(isa, seed, count, first, values);
}

multiversion! {
    fn draw(isa: Isa, seed: u32, count: usize, first: usize, values: &mut [f32]) {
        let mut twister = Twister::new(seed);
        (0..first / STATE).for_each(|_| twister.turn());
        for values in values.chunks_mut(STATE) {
            twister.turn();
            for (value, word) in values.iter_mut().zip(&twister.state) {
                *value = uniform(*word);
            }
            let mut pairs = values.chunks_exact_mut(2 * BLOCK);
            for pair in &mut pairs {
                let (first, second) = pair.split_at_mut(BLOCK);
                box_muller(first, second);
            }
            if let Some(block) = pairs.into_remainder().get_mut(..BLOCK) {
                box_muller(block, &mut [0.0; BLOCK]);
            }
        }
        let (end, last) = (first + values.len(), count - BLOCK);
        if !count.is_multiple_of(BLOCK) && end > last {
            // The last 16 are drawn anew, those already done among them, from the words after all others.
            (end.div_ceil(STATE)..=count / STATE).for_each(|_| twister.turn());
            let mut tail = [0.0; BLOCK];
            for (place, value) in tail.iter_mut().enumerate() {
                let place = count % STATE + place;
                if place == STATE {
                    twister.turn();
                }
                *value = uniform(twister.state[place % STATE]);
            }
            box_muller(&mut tail, &mut [0.0; BLOCK]);
            let skipped = first.saturating_sub(last);
            let from = last.saturating_sub(first);
            values[from..].copy_from_slice(&tail[skipped..skipped + (end - first - from)]);
        }
    }
}

struct Twister {
    state: [u32; STATE],
}

impl Twister {
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "compiled into each variant")]
    fn new(seed: u32) -> Self {
        let mut state = [seed; STATE];
        for i in 1..STATE {
            let before = state[i - 1];
            state[i] = 1_812_433_253u32.wrapping_mul(before ^ (before >> 30)).wrapping_add(i as u32);
        }
        Self { state }
    }

    /// To the next words.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "compiled into each variant")]
    fn turn(&mut self) {
        let state = &self.state;
        let mut next = [0; STATE];
        for i in 0..BEHIND {
            next[i] = state[i + AHEAD] ^ twist(state[i], state[i + 1]);
        }
        // In two parts, each of which looks at the one before it alone.
        for (from, to) in [(BEHIND, 2 * BEHIND), (2 * BEHIND, STATE - 1)] {
            let (done, here) = next.split_at_mut(from);
            let words = state[from..to].iter().zip(&state[from + 1..=to]).zip(&done[from - BEHIND..]);
            for (word, ((now, after), behind)) in here.iter_mut().zip(words) {
                *word = behind ^ twist(*now, *after);
            }
        }
        next[STATE - 1] = next[AHEAD - 1] ^ twist(state[STATE - 1], next[0]);
        self.state = next;
    }
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "compiled into each variant")]
fn twist(now: u32, after: u32) -> u32 {
    let word = (now & 0x8000_0000) | (after & 0x7fff_ffff);
    (word >> 1) ^ ((word & 1).wrapping_neg() & 0x9908_b0df)
}

/// 24 bits of a word.
#[inline(always)]
#[allow(clippy::inline_always, reason = "compiled into each variant")]
fn uniform(mut word: u32) -> f32 {
    word ^= word >> 11;
    word ^= (word << 7) & 0x9d2c_5680;
    word ^= (word << 15) & 0xefc6_0000;
    word ^= word >> 18;
    (word & 0x00ff_ffff) as f32 / 16_777_216.0
}

/// Two blocks of numbers in [0, 1) become cosines and sines: their halves stand side by side, for vectors are longer than one.
#[inline(always)]
#[allow(clippy::inline_always, reason = "compiled into each variant")]
fn box_muller(one: &mut [f32], other: &mut [f32]) {
    let (mut first, mut second) = ([0.0; BLOCK], [0.0; BLOCK]);
    for (block, place) in [(&*one, 0), (&*other, HALF)] {
        first[place..place + HALF].copy_from_slice(&block[..HALF]);
        second[place..place + HALF].copy_from_slice(&block[HALF..]);
    }
    for (a, b) in first.iter_mut().zip(&mut second) {
        let radius = (-2.0 * logarithm(1.0 - *a, -*a)).sqrt();
        let (cosine, sine) = cosine_and_sine(std::f32::consts::TAU * *b);
        (*a, *b) = (radius * cosine, radius * sine);
    }
    for (block, place) in [(one, 0), (other, HALF)] {
        block[..HALF].copy_from_slice(&first[place..place + HALF]);
        block[HALF..].copy_from_slice(&second[place..place + HALF]);
    }
}

/// Of an angle from 0 to 2π.
#[inline(always)]
#[allow(clippy::inline_always, reason = "compiled into each variant")]
fn cosine_and_sine(angle: f32) -> (f32, f32) {
    /// A quarter turn in two parts, of which the first has few enough bits that its products are exact.
    const HIGH: f32 = 1.570_739_7;
    const LOW: f32 = (std::f64::consts::FRAC_PI_2 - HIGH as f64) as f32;
    let quarter = (angle * std::f32::consts::FRAC_2_PI + 0.5) as i32;
    let rest = (angle - quarter as f32 * HIGH) - quarter as f32 * LOW;
    // Both series, up to an eighth of a turn.
    let z = rest * rest;
    let p = 2.755_731_9e-6;
    let p = p * z - 1.984_127e-4;
    let p = p * z + 8.333_333_6e-3;
    let p = p * z - 1.666_666_7e-1;
    let sine = rest + rest * (z * p);
    let p = -2.755_731_9e-7;
    let p = p * z + 2.480_158_8e-5;
    let p = p * z - 1.388_888_9e-3;
    let p = p * z + 4.166_666_8e-2;
    let cosine = (1.0 - 0.5 * z) + z * (z * p);
    let (of_cosine, of_sine) = if quarter & 1 == 0 { (cosine, sine) } else { (sine, cosine) };
    let signed = |value: f32, negative: i32| f32::from_bits(value.to_bits() ^ ((negative as u32 & 2) << 30));
    (signed(of_cosine, quarter + 1), signed(of_sine, quarter))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    /// Its own: `torch.randn(count, generator=torch.Generator().manual_seed(42))[place]`, some of which are drawn twice.
    #[test]
    fn values_are_torchs() {
        for (count, values) in [
            (16, &[(1, 1.487_284_1), (8, -0.752_135_3), (9, 1.648_723)][..]),
            (20, &[(0, 1.926_915_3), (8, 0.355_859_9), (9, -0.686_623), (19, -0.621_595_4)]),
            (5000, &[(4, 0.678_418_46), (700, -1.251_952), (1300, -0.760_973_9), (2000, -0.992_757_1)]),
            (5000, &[(4990, -1.466_756_6), (4999, -1.769_700_4)]),
        ] {
            let mut found = vec![f32::NAN; count];
            torch_normal(Isa::current(), 42, count, 0, &mut found);
            for (place, value) in values {
                assert!((found[*place] - value).abs() < 1e-6, "{place} of {count}: {}", found[*place]);
            }
        }
    }

    #[test]
    fn angles_and_logarithms_are_exact_to_f32() {
        for step in 0..=1 << 16 {
            let angle = (f64::from(step) / 65536.0 * std::f64::consts::TAU) as f32;
            let (cosine, sine) = cosine_and_sine(angle);
            let errors =
                [f64::from(cosine) - f64::from(angle).cos(), f64::from(sine) - f64::from(angle).sin()];
            assert!(errors.iter().all(|error| error.abs() < 1.5e-7), "of {angle}: {errors:?}");
        }
        for step in (0..1 << 24).step_by(999).chain([1, 2, 3, (1 << 24) - 1]) {
            let a = step as f32 / 16_777_216.0;
            let (found, wanted) = (f64::from(logarithm(1.0 - a, -a)), f64::from(1.0 - a).ln());
            assert!((found - wanted).abs() <= 3e-7 * wanted.abs(), "of {a}: {found}, not {wanted}");
        }
    }

    #[test]
    fn neither_processor_nor_parts_show() {
        for count in [16, 17, 31, 32, 623, 624, 625, 639, 640, 1247, 1250, 1263, 5000] {
            let draw = |isa, first: usize, length: usize| {
                let mut values = vec![f32::NAN; length];
                torch_normal(isa, 42, count, first, &mut values);
                values
            };
            let wanted = draw(Isa::Portable, 0, count);
            assert!(wanted.iter().all(|value| value.is_finite()));
            for isa in Isa::available() {
                assert_eq!(draw(isa, 0, count), wanted, "{}, {count}", isa.name());
                let parts = (0..count).step_by(STATE).map(|first| draw(isa, first, STATE.min(count - first)));
                assert_eq!(parts.collect::<Vec<_>>().concat(), wanted, "{}, {count}", isa.name());
            }
        }
    }
}

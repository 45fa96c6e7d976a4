//! numpy's `default_rng`: PCG64 (O'Neill 2014, "PCG: A family of simple fast space-efficient statistically good algorithms for
//! random number generation", XSL-RR 128/64), seeded by a `SeedSequence`.

use super::seed_sequence::seed_words;

const MULTIPLIER: u128 = 0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645;

struct Pcg64 {
    state: u128,
    increment: u128,
}

impl Pcg64 {
    fn new(seed: u64) -> Self {
        let [b, a, d, c, f, e, h, g] = seed_words::<4, 8>(seed, &[]);
        let whole = |words: [u32; 4]| words.iter().fold(0, |sum, word| (sum << 32) | u128::from(*word));
        let (state, stream) = (whole([a, b, c, d]), whole([e, f, g, h]));
        let mut generator = Self { state: 0, increment: (stream << 1) | 1 };
        generator.step();
        generator.state = generator.state.wrapping_add(state);
        generator.step();
        generator
    }

    fn step(&mut self) {
        self.state = self.state.wrapping_mul(MULTIPLIER).wrapping_add(self.increment);
    }

    fn next(&mut self) -> u64 {
        self.step();
        let folded = (self.state >> 64) as u64 ^ self.state as u64;
        folded.rotate_right((self.state >> 122) as u32)
    }
}

/// `numpy.random.default_rng(seed).random(count)`: numbers from 0 to below 1, to the bit.
pub(crate) fn uniform(seed: u64, count: usize) -> Vec<f64> {
    let mut generator = Pcg64::new(seed);
    (0..count).map(|_| (generator.next() >> 11) as f64 / (1u64 << 53) as f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// numpy 2's own.
    #[test]
    fn numbers_are_numpys() {
        assert_eq!(uniform(0, 3), [0.6369616873214543, 0.2697867137638703, 0.04097352393619469]);
        assert_eq!(uniform(42, 2), [0.7739560485559633, 0.4388784397520523]);
        assert_eq!(uniform(123_456_789_012, 2), [0.5660646750946614, 0.08367085961515452]);
    }
}

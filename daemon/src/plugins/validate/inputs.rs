//! Numbers from a seed: the same on every machine, and for each check of its own.

use latentd_models::Tensor;

/// Numbers that look random (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014, SplitMix64).
pub(super) struct Random(u64);

impl Random {
    /// Of a seed and a check's name, so that no check hangs on which were done before it.
    pub(super) fn of(seed: u64, name: &str) -> Self {
        // FNV-1a.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        Self(seed ^ hash)
    }

    pub(super) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 on, below `end`; 0 if that is 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.bits().checked_rem(end as u64).unwrap_or(0) as usize
    }

    /// In 0…1, without 1.
    pub(super) fn share(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// About normal, of unit variance: the sum of four even ones.
    fn normal(&mut self) -> f32 {
        let bits = self.bits();
        let sum: f64 = (0..4).map(|part| f64::from((bits >> (16 * part)) as u16) / 65536.0).sum();
        ((sum - 2.0) * 3.0_f64.sqrt()) as f32
    }

    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }

    /// 0 to `count` in another order; in another one than before, if there are several.
    pub(super) fn order(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            order.swap(last, self.below(last + 1));
        }
        if order.is_sorted() {
            order.reverse();
        }
        order
    }
}

/// What numbers a tensor or image has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Values {
    /// As a drawing has them.
    Usual,
    Zero,
    /// 1e30 and -1e30.
    Huge,
    /// Smaller than any normal number.
    Denormal,
    /// Of all of these.
    Mixed,
}

impl std::fmt::Display for Values {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Usual => "usual",
            Self::Zero => "zero",
            Self::Huge => "huge",
            Self::Denormal => "denormal",
            Self::Mixed => "extreme",
        })
    }
}

impl Values {
    pub(super) const EXTREME: [Self; 4] = [Self::Zero, Self::Huge, Self::Denormal, Self::Mixed];

    fn number(self, random: &mut Random) -> f32 {
        const MIXED: [f32; 10] = [0.0, -0.0, 1e30, -1e30, 1e-40, -1e-45, 1.0, -1.0, 1e-30, 65504.0];
        let sign = if random.bits() & 1 == 0 { 1.0 } else { -1.0 };
        match self {
            Self::Usual => random.normal(),
            Self::Zero => 0.0,
            Self::Huge => 1e30 * sign,
            Self::Denormal => 1e-40 * sign,
            Self::Mixed => random.pick(&MIXED).copied().unwrap_or_default(),
        }
    }

    /// A tensor of such numbers.
    pub(super) fn tensor(self, random: &mut Random, dims: &[usize]) -> latentd_models::Result<Tensor> {
        let count = dims.iter().product();
        Tensor::new((0..count).map(|_| self.number(random)).collect::<Vec<_>>(), dims)
    }

    /// Pixels: black, white, one above black, or any.
    pub(super) fn pixels(self, random: &mut Random, count: usize) -> Vec<u8> {
        let value = |random: &mut Random| match self {
            Self::Usual | Self::Mixed => (random.bits() & 0xff) as u8,
            Self::Zero => 0,
            Self::Huge => 255,
            Self::Denormal => 1,
        };
        (0..count).map(|_| value(random)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_and_a_name_give_the_same_numbers() {
        let numbers = |seed, name| {
            let mut random = Random::of(seed, name);
            [random.bits(), random.below(1000) as u64, random.share().to_bits()]
        };
        assert_eq!(numbers(1, "a"), numbers(1, "a"));
        assert_ne!(numbers(1, "a"), numbers(2, "a"));
        assert_ne!(numbers(1, "a"), numbers(1, "b"));
        let mut random = Random::of(7, "order");
        for count in 0..9 {
            let mut order = random.order(count);
            assert!(count < 2 || !order.is_sorted(), "{order:?}");
            order.sort_unstable();
            assert!(order.into_iter().eq(0..count));
        }
        for values in Values::EXTREME {
            assert!(
                values.tensor(&mut random, &[2, 3]).expect("made").values().iter().all(|x| x.is_finite())
            );
        }
    }
}

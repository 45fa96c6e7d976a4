//! numpy's `SeedSequence`: from entropy and a place in a tree of children to words that seed generators (O'Neill 2015,
//! "Developing a seed_seq alternative").

const XSHIFT: u32 = 16;

/// The hash's multiplier changes with each use.
struct Hash {
    constant: u32,
    multiplier: u32,
}

impl Hash {
    fn mixing() -> Self {
        Self { constant: 0x43b0_d7e5, multiplier: 0x931e_8875 }
    }

    fn drawing() -> Self {
        Self { constant: 0x8b51_f9dd, multiplier: 0x58f3_8ded }
    }

    fn of(&mut self, word: u32) -> u32 {
        let value = word ^ self.constant;
        self.constant = self.constant.wrapping_mul(self.multiplier);
        let value = value.wrapping_mul(self.constant);
        value ^ (value >> XSHIFT)
    }
}

fn mix(x: u32, y: u32) -> u32 {
    let value = x.wrapping_mul(0xca01_f9dd).wrapping_sub(y.wrapping_mul(0x4973_f715));
    value ^ (value >> XSHIFT)
}

/// A number as numpy takes it apart: words from the lowest, without zeros above.
fn words(number: u64) -> impl Iterator<Item = u32> {
    let (low, high) = (number as u32, (number >> 32) as u32);
    std::iter::once(low).chain((high != 0).then_some(high))
}

/// `SeedSequence(entropy, spawn_key=…, pool_size=POOL).generate_state(WORDS)`.
pub(super) fn seed_words<const POOL: usize, const WORDS: usize>(
    entropy: u64,
    spawn_key: &[u64],
) -> [u32; WORDS] {
    let mut given: Vec<u32> = words(entropy).collect();
    if !spawn_key.is_empty() {
        // So that no entropy can be taken for a key.
        given.resize(given.len().max(POOL), 0);
        given.extend(spawn_key.iter().flat_map(|number| words(*number)));
    }
    let mut hash = Hash::mixing();
    let mut pool = [0; POOL];
    for (index, place) in pool.iter_mut().enumerate() {
        *place = hash.of(given.get(index).copied().unwrap_or_default());
    }
    for from in 0..POOL {
        for to in (0..POOL).filter(|to| *to != from) {
            pool[to] = mix(pool[to], hash.of(pool[from]));
        }
    }
    for word in given.iter().skip(POOL) {
        for place in &mut pool {
            *place = mix(*place, hash.of(*word));
        }
    }
    let mut hash = Hash::drawing();
    std::array::from_fn(|index| hash.of(pool[index % POOL]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// numpy 2's own.
    #[test]
    fn words_are_numpys() {
        assert_eq!(seed_words::<24, 3>(42, &[]), [387750627, 2536650517, 4078839648]);
        assert_eq!(seed_words::<24, 4>(42, &[0, 0]), [2102017995, 2891809698, 2144110403, 379559146]);
        assert_eq!(
            seed_words::<24, 4>(123_456_789_012, &[(1 << 33) + 5, 33]),
            [2562959566, 3960028556, 3755389511, 4144718519]
        );
        assert_eq!(
            seed_words::<4, 6>(0, &[7]),
            [23012616, 3782929565, 49642700, 2699152500, 1547912372, 403427116]
        );
    }
}

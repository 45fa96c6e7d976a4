//! Numbers by chance, as numpy's `RandomState` draws them.

const COUNT: usize = 624;
const AHEAD: usize = 397;

/// The Mersenne twister MT19937.
pub struct Twister {
    words: [u32; COUNT],
    place: usize,
}

impl Twister {
    /// Begun as `numpy.random.seed` does it.
    pub fn new(seed: u32) -> Self {
        let mut words = [seed; COUNT];
        for place in 1..COUNT {
            let last = words[place - 1];
            words[place] = 1_812_433_253_u32.wrapping_mul(last ^ (last >> 30)).wrapping_add(place as u32);
        }
        Self { words, place: COUNT }
    }

    /// From 0 to below 1, of 53 bits.
    pub fn uniform(&mut self) -> f64 {
        let (high, low) = (self.word() >> 5, self.word() >> 6);
        (f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0
    }

    fn word(&mut self) -> u32 {
        if self.place == COUNT {
            self.twist();
        }
        let mut word = self.words[self.place];
        self.place += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    fn twist(&mut self) {
        for place in 0..COUNT {
            let next = self.words[(place + 1) % COUNT];
            let both = (self.words[place] & 0x8000_0000) | (next & 0x7fff_ffff);
            let odd = if both & 1 == 1 { 0x9908_b0df } else { 0 };
            self.words[place] = self.words[(place + AHEAD) % COUNT] ^ (both >> 1) ^ odd;
        }
        self.place = 0;
    }
}

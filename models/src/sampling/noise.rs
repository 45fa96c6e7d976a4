//! Normal noise as torch draws it: Philox on a CUDA card, the Mersenne Twister on a CPU. One generator belongs to
//! one image, so an image does not depend on the others of its batch.

use super::named::named;

/// Where noise comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum NoiseSource {
    /// Philox, what a CUDA card draws; A1111's "NV".
    #[default]
    Nv,
    /// torch's Mersenne Twister; A1111's "CPU".
    Cpu,
}

impl NoiseSource {
    /// All of them with their wire names.
    pub const ALL: &[(Self, &'static str)] = &[(Self::Nv, "nv"), (Self::Cpu, "cpu")];
}

named!(NoiseSource);

/// A stream of standard normal values. How many are asked for at once is part of the definition: torch fills a
/// tensor of 16 values and more in another way than a smaller one.
pub enum NoiseGenerator {
    /// Philox 4x32-10, the call index as counter, as A1111's "NV".
    Nv {
        /// The key.
        seed: u64,
        /// Calls so far.
        calls: u32,
    },
    /// MT19937.
    Cpu(Box<Mt19937>),
}

impl NoiseGenerator {
    /// A new stream. torch's CPU generator takes the low 32 bits of `seed`.
    pub fn new(source: NoiseSource, seed: u64) -> Self {
        match source {
            NoiseSource::Nv => Self::Nv { seed, calls: 0 },
            NoiseSource::Cpu => Self::Cpu(Box::new(Mt19937::new(seed as u32))),
        }
    }

    /// The next `count` values, one draw of `torch.randn`.
    pub fn normal(&mut self, count: usize) -> Vec<f32> {
        match self {
            Self::Nv { seed, calls } => {
                let (seed, call) = (*seed, *calls);
                *calls = calls.wrapping_add(1);
                let words =
                    |element| philox_4x32_10([call, 0, element, 0], [seed as u32, (seed >> 32) as u32]);
                let values = (0..count as u32).map(words);
                values.map(|words| box_muller_nv(words[0], words[1])).collect()
            }
            Self::Cpu(twister) => twister.normal(count),
        }
    }
}

/// Philox 4x32 with 10 rounds (Salmon et al. 2011).
pub fn philox_4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    const MULTIPLIERS: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];
    const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];
    for _ in 0..10 {
        let product = |index: usize| u64::from(counter[index * 2]) * u64::from(MULTIPLIERS[index]);
        let (a, b) = (product(0), product(1));
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

/// cuRAND's Box–Muller as A1111 computes it: f32 constants, f64 arithmetic, the sine half.
fn box_muller_nv(x: u32, y: u32) -> f32 {
    const SCALE: f32 = 2.328_306_4e-10; // 2⁻³²
    const SCALE_2PI: f32 = 2.328_306_4e-10 * 6.283_185_5;
    let u = f64::from(x) * f64::from(SCALE) + f64::from(SCALE / 2.0);
    let v = f64::from(y) * f64::from(SCALE_2PI) + f64::from(SCALE_2PI / 2.0);
    ((-2.0 * u.ln()).sqrt() * v.sin()) as f32
}

/// The Mersenne Twister (Matsumoto & Nishimura 1998) with torch's way to normal values.
pub struct Mt19937 {
    state: [u32; 624],
    index: usize,
    /// The second value of a scalar Box–Muller pair, kept for the next small draw.
    spare: Option<f64>,
}

impl Mt19937 {
    fn new(seed: u32) -> Self {
        let mut state = [0u32; 624];
        state[0] = seed;
        for i in 1..624 {
            let previous = state[i - 1];
            state[i] = 1_812_433_253u32.wrapping_mul(previous ^ (previous >> 30)).wrapping_add(i as u32);
        }
        Self { state, index: 624, spare: None }
    }

    fn next_u32(&mut self) -> u32 {
        if self.index == 624 {
            for i in 0..624 {
                let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % 624] & 0x7fff_ffff);
                let twist = if y & 1 == 0 { 0 } else { 0x9908_b0df };
                self.state[i] = self.state[(i + 397) % 624] ^ (y >> 1) ^ twist;
            }
            self.index = 0;
        }
        let mut y = self.state[self.index];
        self.index += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// 24 bits in [0, 1).
    fn uniform_f32(&mut self) -> f32 {
        (self.next_u32() & 0x00ff_ffff) as f32 / 16_777_216.0
    }

    /// 53 bits in [0, 1).
    fn uniform_f64(&mut self) -> f64 {
        let (high, low) = (u64::from(self.next_u32()), u64::from(self.next_u32()));
        ((high << 32 | low) & ((1 << 53) - 1)) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self, count: usize) -> Vec<f32> {
        const BLOCK: usize = 16;
        if count < BLOCK {
            return (0..count).map(|_| self.scalar_normal() as f32).collect();
        }
        let mut values: Vec<f32> = (0..count).map(|_| self.uniform_f32()).collect();
        let whole = count - count % BLOCK;
        values[..whole].chunks_exact_mut(BLOCK).for_each(box_muller_block);
        if whole < count {
            // The last 16 are drawn anew, those already done among them.
            let tail = &mut values[count - BLOCK..];
            for value in tail.iter_mut() {
                *value = self.uniform_f32();
            }
            box_muller_block(tail);
        }
        values
    }

    fn scalar_normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let (u, v) = (self.uniform_f64(), self.uniform_f64());
        let (radius, angle) = ((-2.0 * (-v).ln_1p()).sqrt(), std::f64::consts::TAU * u);
        self.spare = Some(radius * angle.sin());
        radius * angle.cos()
    }
}

/// 16 uniform values become 8 pairs of normal ones: cosines, then sines.
fn box_muller_block(block: &mut [f32]) {
    let (first, second) = block.split_at_mut(block.len() / 2);
    for (a, b) in first.iter_mut().zip(second) {
        let radius = (-2.0 * f64::from(1.0 - *a).ln()).sqrt();
        let angle = f64::from(std::f32::consts::TAU * *b);
        (*a, *b) = ((radius * angle.cos()) as f32, (radius * angle.sin()) as f32);
    }
}

//! How bright a colour is.

use super::fused;

/// L of L*a*b* (D65, sRGB), 0…255, as OpenCV computes it in whole numbers.
pub struct Luminance {
    linear: [u32; 256],
    roots: Vec<u32>,
}

/// Bits behind the point: of linear light, of the matrix, of what becomes L.
const LIGHT_BITS: u32 = 3;
const MATRIX_BITS: u32 = 12;
const ROOT_BITS: u32 = 15;

/// What red, green and blue are of the luminance, in 4096ths.
const SHARES: [u32; 3] = [871, 2929, 296];

impl Luminance {
    /// Tables are made.
    pub fn new() -> Self {
        let light = |value: usize| {
            let x = f64::from(value as f32 / 255.0);
            let linear = if x <= 0.04045 { x / 12.92 } else { ((x + 0.055) / 1.055).powf(2.4) };
            (linear as f32 * (255 << LIGHT_BITS) as f32).round_ties_even() as u32
        };
        let root = |value: usize| {
            let x = value as f32 * (1.0 / (255 << LIGHT_BITS) as f32);
            let root = if x < 216.0 / 24389.0 {
                fused(x, 841.0 / 108.0, 16.0 / 116.0)
            } else {
                cut(f64::from(x).cbrt())
            };
            ((1 << ROOT_BITS) as f32 * root).round_ties_even() as u32
        };
        Self {
            linear: std::array::from_fn(light),
            roots: (0..(256 * 3 / 2) << LIGHT_BITS).map(root).collect(),
        }
    }

    /// Of red, green and blue.
    pub fn of(&self, colour: [u8; 3]) -> u8 {
        /// 116 and −16, of 100, in 255.
        const SCALE: i64 = (116 * 255 + 50) / 100;
        const SHIFT: i64 = -((16 * 255 * (1 << ROOT_BITS) + 50) / 100);
        let sum: u32 = colour
            .into_iter()
            .zip(SHARES)
            .map(|(value, share)| self.linear[usize::from(value)] * share)
            .sum();
        let root = self.roots[((sum + (1 << (MATRIX_BITS - 1))) >> MATRIX_BITS) as usize];
        let scaled = SCALE * i64::from(root) + SHIFT;
        ((scaled + (1 << (ROOT_BITS - 1))) >> ROOT_BITS).clamp(0, 255) as u8
    }
}

/// As a float, its last bits cut off, as the reference's cube root has it.
fn cut(value: f64) -> f32 {
    const LOST: u32 = f64::MANTISSA_DIGITS - f32::MANTISSA_DIGITS;
    f64::from_bits(value.to_bits() >> LOST << LOST) as f32
}

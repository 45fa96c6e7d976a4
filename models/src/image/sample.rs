//! The numbers that pixels are made of: of 8 bits, or of 16.

use std::borrow::Cow;
use std::fmt::Debug;
use std::ops::{AddAssign, Mul};

/// A number of a pixel: `u8` or `u16`.
pub trait Sample: Copy + Default + Eq + Debug + Send + Sync + 'static {
    /// What products with weights of 22 bits are added up in.
    type Sum: Copy + AddAssign + Mul<Output = Self::Sum> + From<i32>;

    /// The largest.
    const MOST: u32;

    /// As a summand.
    fn sum(self) -> Self::Sum;

    /// A sum without its lowest `bits`; what is beyond either end is that end.
    fn of_sum(sum: Self::Sum, bits: u32) -> Self;

    /// As a number.
    fn number(self) -> u32;

    /// A number; what is too large is the largest.
    fn of(number: u32) -> Self;

    /// As a share of the largest, 0…1.
    fn share(self) -> f32 {
        self.number() as f32 / Self::MOST as f32
    }

    /// The nearest of a share; what is beyond either end is that end, and what is no number 0.
    fn of_share(share: f32) -> Self {
        Self::of((share.clamp(0.0, 1.0) * Self::MOST as f32).round() as u32)
    }

    /// The same in 8 bits: of 16 the upper ones.
    fn to_8_bits(self) -> u8;

    /// The same, from 8 bits.
    fn of_8_bits(value: u8) -> Self;

    /// All of them in 8 bits.
    fn narrowed(pixels: Vec<Self>) -> Vec<u8>;

    /// Pixels that have 8 bits anyway.
    fn as_8_bits(pixels: &[Self]) -> Option<&[u8]>;

    /// As files have them that hold the upper byte first.
    fn big_endian(pixels: &[Self]) -> Cow<'_, [u8]>;

    /// Between this and another, so far on the way: as Pillow's `Image.blend` has it, which cuts 8 bits off; 16 are rounded.
    #[must_use]
    fn blended(self, other: Self, share: f32) -> Self;
}

impl Sample for u8 {
    type Sum = i32;
    const MOST: u32 = 255;

    fn sum(self) -> i32 {
        i32::from(self)
    }

    fn of_sum(sum: i32, bits: u32) -> Self {
        (sum >> bits).clamp(0, 255) as Self
    }

    fn number(self) -> u32 {
        u32::from(self)
    }

    fn of(number: u32) -> Self {
        number.min(255) as Self
    }

    fn to_8_bits(self) -> u8 {
        self
    }

    fn of_8_bits(value: u8) -> Self {
        value
    }

    fn narrowed(pixels: Vec<Self>) -> Vec<u8> {
        pixels
    }

    fn as_8_bits(pixels: &[Self]) -> Option<&[u8]> {
        Some(pixels)
    }

    fn big_endian(pixels: &[Self]) -> Cow<'_, [u8]> {
        pixels.into()
    }

    fn blended(self, other: Self, share: f32) -> Self {
        let (from, to) = (f32::from(self), f32::from(other));
        (from + share * (to - from)) as Self
    }
}

impl Sample for u16 {
    type Sum = i64;
    const MOST: u32 = 65_535;

    fn sum(self) -> i64 {
        i64::from(self)
    }

    fn of_sum(sum: i64, bits: u32) -> Self {
        (sum >> bits).clamp(0, 65_535) as Self
    }

    fn number(self) -> u32 {
        u32::from(self)
    }

    fn of(number: u32) -> Self {
        number.min(65_535) as Self
    }

    fn to_8_bits(self) -> u8 {
        (self >> 8) as u8
    }

    fn of_8_bits(value: u8) -> Self {
        Self::from(value) * 257
    }

    fn narrowed(pixels: Vec<Self>) -> Vec<u8> {
        pixels.into_iter().map(Self::to_8_bits).collect()
    }

    fn as_8_bits(_: &[Self]) -> Option<&[u8]> {
        None
    }

    fn big_endian(pixels: &[Self]) -> Cow<'_, [u8]> {
        pixels.iter().flat_map(|value| value.to_be_bytes()).collect::<Vec<u8>>().into()
    }

    fn blended(self, other: Self, share: f32) -> Self {
        let (from, to) = (f64::from(self), f64::from(other));
        (from + f64::from(share) * (to - from)).round() as Self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_8_bits_come_back() {
        for value in 0..=255u8 {
            assert_eq!((u8::of_share(value.share()), u16::of_8_bits(value).to_8_bits()), (value, value));
        }
        for value in (0..=65_535u16).step_by(7) {
            assert_eq!(u16::of_share(value.share()), value);
        }
        assert_eq!([-1.0, 2.0, f32::NAN].map(u8::of_share), [0, 255, 0]);
    }

    #[test]
    fn blends_are_those_of_pillow() {
        // Image.blend(Image.new("L", (1, 1), a), Image.new("L", (1, 1), b), share)
        for (a, b, share, wanted) in
            [(10, 20, 0.55, 15), (20, 10, 0.55, 14), (7, 7, 0.3, 7), (0, 255, 0.5, 127)]
        {
            assert_eq!(u8::blended(a, b, share), wanted);
        }
        assert_eq!(u16::blended(0, 65_535, 0.5), 32_768);
    }
}

//! Pictures of other sizes.

mod area;
mod cubic;
mod linear;
mod nearest;

use super::{Grid, to_byte};
use area::area;
pub use cubic::cubic;
use nearest::nearest;

/// Bits of a weight in whole numbers.
const WEIGHT_BITS: u32 = 11;

/// How pixels are made of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// The pixel whose part it is.
    Nearest,
    /// The mean of what it covers.
    Area,
    /// A cubic of sixteen neighbours (a = −0.75).
    Cubic,
}

/// To these sides, neither of them 0; a picture that has them stays as it is.
pub fn resize<T: Sample>(from: &Grid<T>, width: usize, height: usize, how: Interpolation) -> Grid<T> {
    if (from.width, from.height) == (width, height) {
        return from.clone();
    }
    match how {
        Interpolation::Nearest => nearest(from, width, height),
        Interpolation::Area => area(from, width, height),
        Interpolation::Cubic => cubic(from, width, height),
    }
}

/// A number of a picture that is blended by weights.
pub trait Blended: Copy + Default {
    /// A weight.
    type Weight: Copy + Default;
    /// What weighted numbers add up to.
    type Sum: Copy + Default;

    /// A weight of a share.
    fn weight(share: f32) -> Self::Weight;
    /// The number by a weight, added to a sum.
    fn weighted(self, weight: Self::Weight, sum: Self::Sum) -> Self::Sum;
    /// A row of four that were blended along their length, by weights again.
    fn of_four(rows: [&[Self::Sum]; 4], weights: [Self::Weight; 4], to: &mut [Self]);
}

/// A number of a picture of any kind of interpolation.
pub trait Sample: Blended + PartialEq + PartialOrd {
    /// As a float.
    fn float(self) -> f32;
    /// Of a float, rounded where it is whole.
    fn of(value: f32) -> Self;
    /// Of a float, cut where it is whole.
    fn cut(value: f32) -> Self;
    /// The mean of two by two.
    fn mean_of_four(values: [Self; 4]) -> Self;
    /// A row of two, as [`Blended::of_four`].
    fn of_two(rows: [&[Self::Sum]; 2], weights: [Self::Weight; 2], to: &mut [Self]);
}

impl Blended for u8 {
    type Weight = i32;
    type Sum = i32;

    fn weight(share: f32) -> i32 {
        (share * (1 << WEIGHT_BITS) as f32).round_ties_even() as i32
    }

    fn weighted(self, weight: i32, sum: i32) -> i32 {
        sum + i32::from(self) * weight
    }

    fn of_four(rows: [&[i32]; 4], weights: [i32; 4], to: &mut [u8]) {
        const ONE: i32 = 1 << (2 * WEIGHT_BITS);
        let shares = weights.map(|weight| weight as f32 * (1.0 / ONE as f32));
        let [first, second, third, fourth] = rows.map(|row| &row[..to.len()]);
        // Eight at a time in floats, what is left of the row in whole numbers.
        let floats = to.len() / 8 * 8;
        let at = |row: &[i32], x: usize, share: f32| row[x] as f32 * share;
        for x in 0..floats {
            let sum = at(third, x, shares[2]) + at(fourth, x, shares[3]);
            to[x] = to_byte(at(first, x, shares[0]) + (at(second, x, shares[1]) + sum));
        }
        for x in floats..to.len() {
            let sum = first[x] * weights[0]
                + second[x] * weights[1]
                + third[x] * weights[2]
                + fourth[x] * weights[3];
            to[x] = ((sum + ONE / 2) >> (2 * WEIGHT_BITS)).clamp(0, 255) as u8;
        }
    }
}

impl Sample for u8 {
    fn float(self) -> f32 {
        f32::from(self)
    }

    fn of(value: f32) -> u8 {
        to_byte(value)
    }

    fn cut(value: f32) -> u8 {
        value as u8
    }

    fn mean_of_four(values: [u8; 4]) -> u8 {
        ((values.into_iter().map(u16::from).sum::<u16>() + 2) >> 2) as u8
    }

    fn of_two([first, second]: [&[i32]; 2], weights: [i32; 2], to: &mut [u8]) {
        let part = |value: i32, weight: i32| (weight * (value >> 4)) >> 16;
        for ((to, first), second) in to.iter_mut().zip(first).zip(second) {
            *to = ((part(*first, weights[0]) + part(*second, weights[1]) + 2) >> 2) as u8;
        }
    }
}

impl Blended for f32 {
    type Weight = f32;
    type Sum = f32;

    fn weight(share: f32) -> f32 {
        share
    }

    fn weighted(self, weight: f32, sum: f32) -> f32 {
        sum + self * weight
    }

    fn of_four([first, second, third, fourth]: [&[f32]; 4], weights: [f32; 4], to: &mut [f32]) {
        for (x, to) in to.iter_mut().enumerate() {
            let sum = second[x] * weights[1] + (third[x] * weights[2] + fourth[x] * weights[3]);
            *to = first[x] * weights[0] + sum;
        }
    }
}

impl Sample for f32 {
    fn float(self) -> f32 {
        self
    }

    fn of(value: f32) -> f32 {
        value
    }

    fn cut(value: f32) -> f32 {
        value
    }

    fn mean_of_four([first, second, third, fourth]: [f32; 4]) -> f32 {
        (first + second + third + fourth) * 0.25
    }

    fn of_two([first, second]: [&[f32]; 2], weights: [f32; 2], to: &mut [f32]) {
        for ((to, first), second) in to.iter_mut().zip(first).zip(second) {
            *to = first * weights[0] + second * weights[1];
        }
    }
}

impl Blended for f64 {
    type Weight = f64;
    type Sum = f64;

    fn weight(share: f32) -> f64 {
        f64::from(share)
    }

    fn weighted(self, weight: f64, sum: f64) -> f64 {
        sum + self * weight
    }

    fn of_four([first, second, third, fourth]: [&[f64]; 4], weights: [f64; 4], to: &mut [f64]) {
        for (x, to) in to.iter_mut().enumerate() {
            *to = first[x] * weights[0]
                + second[x] * weights[1]
                + third[x] * weights[2]
                + fourth[x] * weights[3];
        }
    }
}

/// How many times as long a side was.
fn times_longer(from: usize, to: usize) -> f64 {
    1.0 / (to as f64 / from as f64)
}

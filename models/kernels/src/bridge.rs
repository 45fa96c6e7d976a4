//! The middle of a Brownian motion between two times, for many motions at once.
#![allow(unsafe_code)]

use crate::isa::multiversion;

/// Where a stretch of time is cut.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// The share of the increment that the left half has without noise.
    pub mean: f64,
    /// What noise is multiplied by for the left half.
    pub deviation: f64,
    /// Whether the right half is the one that is gone into.
    pub goes_right: bool,
}

multiversion! {
    /// From each motion at the begin of a stretch of time and its increment over it to those of one half, by unit noise of its
    /// own.
    pub fn halve(isa: Isa, cut: Cut, noise: &[f32], increments: &mut [f64], motions: &mut [f64]) {
        let Cut { mean, deviation, goes_right } = cut;
        let each = noise.iter().zip(increments).zip(motions);
        if goes_right {
            for ((noise, increment), motion) in each {
                let left = mean * *increment + deviation * f64::from(*noise);
                *motion += left;
                *increment -= left;
            }
        } else {
            for ((noise, increment), _) in each {
                *increment = mean * *increment + deviation * f64::from(*noise);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    #[test]
    fn both_halves_are_the_whole_with_the_same_bits_everywhere() {
        let noise: Vec<f32> = (0..37).map(|index| (index as f32 * 0.7).sin()).collect();
        for isa in Isa::available() {
            let half = |goes_right| {
                let (mut increments, mut motions) = (vec![2.0; 37], vec![1.0; 37]);
                let cut = Cut { mean: 0.5, deviation: 0.3, goes_right };
                halve(isa, cut, &noise, &mut increments, &mut motions);
                (increments, motions)
            };
            let ((left, before), (right, middle)) = (half(false), half(true));
            assert!(before.iter().all(|motion| *motion == 1.0));
            for (index, noise) in noise.iter().enumerate() {
                assert_eq!(left[index], 1.0 + 0.3 * f64::from(*noise));
                assert_eq!((right[index], middle[index]), (2.0 - left[index], 1.0 + left[index]));
            }
        }
    }
}

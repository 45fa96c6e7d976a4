//! The noise that an image begins with, by A1111's rules (`modules/rng.py`): that of its seed, turned towards another
//! seed's, or what the seed gives at another size.

use super::noise::{NoiseGenerator, NoiseSource};

/// How much of another seed's noise there is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Variation {
    /// The other seed.
    pub subseed: u64,
    /// 0 for none of it, 1 for nothing else.
    pub strength: f64,
}

/// What an image's noise is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ImageNoise {
    /// Where it comes from.
    pub source: NoiseSource,
    /// The image's seed.
    pub seed: u64,
    /// None if `None`; a strength of 0 is none too.
    pub variation: Option<Variation>,
    /// `(width, height)` in pixels: the image shows in its middle what the seed gives at this size.
    pub resized_from: Option<(usize, usize)>,
}

/// Channels, rows and columns of latents.
type Shape = [usize; 3];

/// Means of cosines above this are those of noise that is nearly the same: A1111 mixes it instead of turning it.
const NEARLY_THE_SAME: f64 = 0.9995;

impl ImageNoise {
    /// The first noise `(channels, rows, columns)`, and the generator that step noise comes from: the seed's own, which has
    /// drawn once in this shape.
    pub fn begin(&self, shape: Shape) -> (Vec<f32>, NoiseGenerator) {
        let mut generator = NoiseGenerator::new(self.source, self.seed);
        let own = generator.normal(shape.iter().product());
        let [channels, rows, columns] = shape;
        let drawn_in = match self.resized_from {
            None => shape,
            Some((width, height)) => [channels, height / 8, width / 8],
        };
        let draw = |seed| NoiseGenerator::new(self.source, seed).normal(drawn_in.iter().product());
        let is_resized = drawn_in != shape;
        let noise = if is_resized { draw(self.seed) } else { own.clone() };
        let noise = match self.variation {
            Some(Variation { subseed, strength }) if strength != 0.0 => {
                turned(strength, &noise, &draw(subseed), drawn_in)
            }
            _ => noise,
        };
        let noise = if is_resized { pasted(own, [rows, columns], &noise, drawn_in) } else { noise };
        (noise, generator)
    }
}

/// From `low` towards `high`, on the arc between them, column by column of each channel.
fn turned(share: f64, low: &[f32], high: &[f32], [channels, rows, columns]: Shape) -> Vec<f32> {
    let lines: Vec<[usize; 2]> =
        (0..channels).flat_map(|channel| (0..columns).map(move |column| [channel, column])).collect();
    let places =
        |[channel, column]: [usize; 2]| (0..rows).map(move |row| (channel * rows + row) * columns + column);
    let cosine = |line: &[usize; 2]| {
        let product = |a: &[f32], b: &[f32]| {
            places(*line).map(|place| f64::from(a[place]) * f64::from(b[place])).sum::<f64>()
        };
        product(low, high) / (product(low, low).sqrt() * product(high, high).sqrt())
    };
    let cosines: Vec<f64> = lines.iter().map(cosine).collect();
    let mean = cosines.iter().sum::<f64>() / cosines.len() as f64;
    if mean > NEARLY_THE_SAME {
        // The shares stand so, the other way round, in A1111.
        let mixed = low
            .iter()
            .zip(high)
            .map(|(low, high)| f64::from(*low) * share + f64::from(*high) * (1.0 - share));
        return mixed.map(|value| value as f32).collect();
    }
    let mut noise = vec![0.0; low.len()];
    for (line, cosine) in lines.into_iter().zip(cosines) {
        let angle = cosine.clamp(-1.0, 1.0).acos();
        let of_low = ((1.0 - share) * angle).sin() / angle.sin();
        let of_high = (share * angle).sin() / angle.sin();
        for place in places(line) {
            noise[place] = (of_low * f64::from(low[place]) + of_high * f64::from(high[place])) as f32;
        }
    }
    noise
}

/// `noise` in the middle of `own`, as much of it as there is room for.
fn pasted(
    mut own: Vec<f32>,
    [rows, columns]: [usize; 2],
    noise: &[f32],
    [channels, noise_rows, noise_columns]: Shape,
) -> Vec<f32> {
    let (to_row, from_row, height) = overlap(rows, noise_rows);
    let (to_column, from_column, width) = overlap(columns, noise_columns);
    for channel in 0..channels {
        for row in 0..height {
            let to = (channel * rows + to_row + row) * columns + to_column;
            let from = (channel * noise_rows + from_row + row) * noise_columns + from_column;
            own[to..to + width].copy_from_slice(&noise[from..from + width]);
        }
    }
    own
}

/// Where in `own` places, from where in `other`, and how many. Of one that is longer by an odd number, one place less than
/// there is room for.
fn overlap(own: usize, other: usize) -> (usize, usize, usize) {
    if own >= other {
        ((own - other) / 2, 0, other)
    } else {
        let before = (other - own).div_ceil(2);
        (0, before, other.saturating_sub(2 * before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn middles_lie_over_each_other() {
        for (own, other, expected) in [
            (8, 8, (0, 0, 8)),
            (8, 4, (2, 0, 4)),
            (8, 5, (1, 0, 5)),
            (8, 12, (0, 2, 8)),
            (8, 9, (0, 1, 7)),
            (1, 2, (0, 1, 0)),
        ] {
            assert_eq!(overlap(own, other), expected, "{own}, {other}");
        }
    }

    #[test]
    fn steps_go_on_from_the_images_own_generator() {
        let plain = ImageNoise { source: NoiseSource::Nv, seed: 5, variation: None, resized_from: None };
        let varied = ImageNoise {
            variation: Some(Variation { subseed: 9, strength: 0.3 }),
            resized_from: Some((16, 40)),
            ..plain
        };
        let shape = [4, 3, 4];
        let mut own = NoiseGenerator::new(NoiseSource::Nv, 5);
        assert_eq!(plain.begin(shape).0, own.normal(48));
        let next = own.normal(48);
        for noise in [plain, varied] {
            assert_eq!(noise.begin(shape).1.normal(48), next);
        }
        for strength in [0.0, 1.0] {
            let variation = Some(Variation { subseed: 9, strength });
            let seed = if strength == 0.0 { 5 } else { 9 };
            let wanted = ImageNoise { seed, ..plain }.begin(shape).0;
            let found = ImageNoise { variation, ..plain }.begin(shape).0;
            let off = |(a, b): (&f32, &f32)| (a - b).abs() > 1e-6;
            assert!(!found.iter().zip(&wanted).any(off), "{strength}");
        }
    }
}

//! Otsu's threshold.

use super::Grid;

/// One channel in black and white: white is above the threshold that parts dark and bright best.
pub fn in_two(from: &Grid<u8>) -> Grid<u8> {
    let limit = threshold(&from.data);
    let data = from.data.iter().map(|value| if *value > limit { 255 } else { 0 }).collect();
    Grid { width: from.width, height: from.height, channels: 1, data }
}

/// The first for which the two sides' means lie farthest apart, by how many there are.
fn threshold(values: &[u8]) -> u8 {
    let mut counts = [0_u32; 256];
    for value in values {
        counts[usize::from(*value)] += 1;
    }
    let share = 1.0 / values.len() as f64;
    let all: f64 = counts.iter().enumerate().map(|(value, count)| value as f64 * f64::from(*count)).sum();
    let mean = all * share;
    let (mut dark, mut dark_mean) = (0.0, 0.0);
    let (mut best, mut limit) = (0.0, 0);
    for (value, count) in counts.iter().enumerate() {
        let own = f64::from(*count) * share;
        dark_mean *= dark;
        dark += own;
        let bright = 1.0 - dark;
        if dark.min(bright) < f64::from(f32::EPSILON) || dark.max(bright) > 1.0 - f64::from(f32::EPSILON) {
            continue;
        }
        dark_mean = (dark_mean + value as f64 * own) / dark;
        let bright_mean = (mean - dark * dark_mean) / bright;
        let apart = dark * bright * (dark_mean - bright_mean) * (dark_mean - bright_mean);
        if apart > best {
            (best, limit) = (apart, value);
        }
    }
    limit as u8
}

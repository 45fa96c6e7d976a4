//! Pillow's `GaussianBlur`: three box blurs whose edges count in part (Gwosdek and others, "Theoretical Foundations of
//! Gaussian Convolution by Extended Box Filtering", 2011; `libImaging/BoxBlur.c` has the numbers), byte for byte.

const PASSES: usize = 3;

/// Blurs rows of `width` pixels of N channels, along rows and then along columns. Beyond an edge its pixels are repeated.
pub(super) fn gaussian<const N: usize>(pixels: &mut [u8], width: usize, radius: f32) {
    let Some(weights) = Weights::new(radius) else { return };
    let mut line = vec![0; width * N];
    for row in pixels.chunks_exact_mut(width * N) {
        for _ in 0..PASSES {
            line.copy_from_slice(row);
            weights.blur::<N>(&line, row);
        }
    }
    let mut before = vec![0; pixels.len()];
    for _ in 0..PASSES {
        before.copy_from_slice(pixels);
        weights.blur_columns(&before, pixels, width * N);
    }
}

/// A box of pixels on both sides that count in full, and one more on each that counts in part.
struct Weights {
    radius: usize,
    /// Of 2²⁴.
    whole: u32,
    part: u32,
}

impl Weights {
    /// For one of the passes that make up a Gaussian of this radius; none for one that changes nothing.
    fn new(radius: f32) -> Option<Self> {
        if radius.is_nan() || radius <= 0.0 {
            return None;
        }
        let variance = radius * radius / PASSES as f32;
        let length = (12.0 * f64::from(variance) + 1.0).sqrt() as f32;
        let whole = ((f64::from(length) - 1.0) / 2.0).floor() as f32;
        let part = (2.0 * whole + 1.0) * (whole * (whole + 1.0) - 3.0 * variance)
            / (6.0 * (variance - (whole + 1.0) * (whole + 1.0)));
        let box_radius = whole + part;
        let radius = box_radius as usize;
        let weight = ((1 << 24) as f32 / (box_radius * 2.0 + 1.0)) as u32;
        let rest = (1 << 24) - (radius as u32 * 2 + 1) * weight;
        Some(Self { radius, whole: weight, part: rest / 2 })
    }

    fn blur<const N: usize>(&self, line: &[u8], blurred: &mut [u8]) {
        let last = line.len() / N - 1;
        let pixel = |place: usize| -> [u32; N] {
            let at = place.min(last) * N;
            std::array::from_fn(|channel| u32::from(line[at + channel]))
        };
        // What is in the box of the pixel before the first.
        let mut sum = pixel(0).map(|value| value * (self.radius as u32 + 1));
        for place in 0..self.radius {
            let value = pixel(place);
            for channel in 0..N {
                sum[channel] += value[channel];
            }
        }
        for (place, blurred) in blurred.chunks_exact_mut(N).enumerate() {
            let leaving = pixel(place.saturating_sub(self.radius + 1));
            let entering = pixel(place + self.radius);
            let next = pixel(place + self.radius + 1);
            for channel in 0..N {
                sum[channel] = sum[channel] + entering[channel] - leaving[channel];
                let edges = leaving[channel] + next[channel];
                blurred[channel] = rounded(sum[channel] * self.whole + edges * self.part);
            }
        }
    }

    /// The same along columns of lines of `length` bytes.
    fn blur_columns(&self, lines: &[u8], blurred: &mut [u8], length: usize) {
        let last = lines.len() / length - 1;
        let line = |place: usize| &lines[place.min(last) * length..][..length];
        let more = self.radius as u32 + 1;
        let mut sums: Vec<u32> = line(0).iter().map(|value| u32::from(*value) * more).collect();
        for place in 0..self.radius {
            for (sum, value) in sums.iter_mut().zip(line(place)) {
                *sum += u32::from(*value);
            }
        }
        for (place, blurred) in blurred.chunks_exact_mut(length).enumerate() {
            let leaving = line(place.saturating_sub(self.radius + 1));
            let entering = line(place + self.radius);
            let next = line(place + self.radius + 1);
            let values = entering.iter().zip(leaving).zip(next);
            for ((sum, blurred), ((entering, leaving), next)) in sums.iter_mut().zip(blurred).zip(values) {
                *sum = *sum + u32::from(*entering) - u32::from(*leaving);
                let edges = u32::from(*leaving) + u32::from(*next);
                *blurred = rounded(*sum * self.whole + edges * self.part);
            }
        }
    }
}

fn rounded(sum: u32) -> u8 {
    ((sum + (1 << 23)) >> 24) as u8
}

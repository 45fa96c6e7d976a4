//! Pixels taken from elsewhere.

use super::Grid;

/// Steps between two pixels.
const STEPS: i64 = 32;

/// Each pixel from the place that `xs` and `ys` tell, in pixels, a blend of four; beyond the edge is black.
pub fn remap(from: &Grid<u8>, xs: &[f32], ys: &[f32]) -> Grid<u8> {
    let channels = from.channels;
    let (width, height) = (from.width as i64, from.height as i64);
    let mut to = Grid::new(from.width, from.height, channels);
    let steps = |place: f32| (place * STEPS as f32).round_ties_even() as i64;
    for ((to, x), y) in to.data.chunks_exact_mut(channels).zip(xs).zip(ys) {
        let (x, y) = (steps(*x), steps(*y));
        let (left, top) = (x.div_euclid(STEPS), y.div_euclid(STEPS));
        let (right, down) = (x.rem_euclid(STEPS) as u32, y.rem_euclid(STEPS) as u32);
        let shares = [(32 - right) * (32 - down), right * (32 - down), (32 - right) * down, right * down];
        let inner = (0..width - 1).contains(&left) && (0..height - 1).contains(&top);
        if inner {
            let first = (top * width + left) as usize * channels;
            let above = &from.data[first..][..2 * channels];
            let below = &from.data[first + from.width * channels..][..2 * channels];
            for (channel, to) in to.iter_mut().enumerate() {
                let next = channel + channels;
                let pixels = [above[channel], above[next], below[channel], below[next]];
                *to = blended(pixels, shares);
            }
            continue;
        }
        let places = [(left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)];
        for (channel, to) in to.iter_mut().enumerate() {
            let pixels = places.map(|(x, y)| {
                let within = (0..width).contains(&x) && (0..height).contains(&y);
                if within { from.data[(y * width + x) as usize * channels + channel] } else { 0 }
            });
            *to = blended(pixels, shares);
        }
    }
    to
}

/// Four by their shares of 1024.
fn blended(pixels: [u8; 4], shares: [u32; 4]) -> u8 {
    let sum: u32 = pixels.into_iter().zip(shares).map(|(pixel, share)| u32::from(pixel) * share).sum();
    ((sum + 512) >> 10) as u8
}

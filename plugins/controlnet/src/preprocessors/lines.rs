//! Modules that draw the lines of a picture.

use super::Settings;
use super::cv::median::median;
use super::cv::{Grid, canny as edges, gaussian};

/// White edges.
pub fn canny(from: &Grid<u8>, settings: &Settings) -> Grid<u8> {
    edges::canny(from, settings.first as i32, settings.second as i32)
}

/// White where a picture is darker than around it, by a difference of Gaussians.
pub fn xdog(from: &Grid<u8>, settings: &Settings) -> Grid<u8> {
    let floats = floats(from);
    let (fine, coarse) = (gaussian::of_floats(&floats, 0.5), gaussian::of_floats(&floats, 5.0));
    let limit = settings.first;
    let data = least(&coarse, &fine).map(|difference| {
        let shade = 255 - (255.0 - difference) as u8;
        // The reference doubles it within a byte.
        let doubled = shade.wrapping_mul(2);
        if f64::from(doubled) > limit { 255 } else { 0 }
    });
    Grid { width: from.width, height: from.height, channels: 1, data: data.collect() }
}

/// Grey where a picture is darker than around it, as bright as is usual in it.
pub fn standard(from: &Grid<u8>) -> Grid<u8> {
    const NOISE: f32 = 8.0;
    const LEAST: f32 = 16.0;
    let floats = floats(from);
    let blurred = gaussian::of_floats(&floats, 6.0);
    let strengths: Vec<f32> = least(&blurred, &floats).map(|value| value.clamp(0.0, 255.0)).collect();
    let mut lines: Vec<f32> = strengths.iter().copied().filter(|value| *value > NOISE).collect();
    let usual = if lines.is_empty() { LEAST } else { median(&mut lines).max(LEAST) };
    let data = strengths.iter().map(|value| (value / usual * 127.0) as u8).collect();
    Grid { width: from.width, height: from.height, channels: 1, data }
}

fn floats(from: &Grid<u8>) -> Grid<f32> {
    let data = from.data.iter().map(|value| f32::from(*value)).collect();
    Grid { width: from.width, height: from.height, channels: from.channels, data }
}

/// The least difference of a pixel's channels.
fn least<'a>(left: &'a Grid<f32>, right: &'a Grid<f32>) -> impl Iterator<Item = f32> + 'a {
    left.pixels().zip(right.pixels()).map(|(left, right)| {
        left.iter().zip(right).map(|(left, right)| left - right).fold(f32::INFINITY, f32::min)
    })
}

//! Content shuffle: a picture whose parts flow elsewhere, by smooth noise.

use super::cv::Grid;
use super::cv::remap::remap;
use super::cv::resize::cubic;
use super::random::Twister;

/// Pixels between two numbers of the noise.
const GRAIN: usize = 256;

/// Shuffled by what comes of a seed.
pub fn shuffled(from: &Grid<u8>, seed: u32) -> Grid<u8> {
    let mut chance = Twister::new(seed);
    let mut places = |side: usize| -> Vec<f32> {
        let far = (side - 1) as f64;
        noise(from.width, from.height, &mut chance).into_iter().map(|value| (value * far) as f32).collect()
    };
    let xs = places(from.width);
    let ys = places(from.height);
    remap(from, &xs, &ys)
}

/// Smooth noise that takes all of 0…1.
fn noise(width: usize, height: usize, chance: &mut Twister) -> Vec<f64> {
    let mut coarse = Grid::<f64>::new(width / GRAIN + 2, height / GRAIN + 2, 1);
    coarse.data.iter_mut().for_each(|value| *value = chance.uniform());
    let smooth = cubic(&coarse, width + 2 * GRAIN, height + 2 * GRAIN).part(GRAIN, GRAIN, width, height);
    let least = smooth.data.iter().copied().fold(f64::INFINITY, f64::min);
    let most = smooth.data.iter().map(|value| value - least).fold(f64::NEG_INFINITY, f64::max);
    smooth.data.iter().map(|value| (value - least) / most).collect()
}

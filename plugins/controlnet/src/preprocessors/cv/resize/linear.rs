//! What stands for the mean of an area where a side grows: two pixels that are blended by how much of each is covered.

use super::super::Grid;
use super::{Sample, times_longer};

/// To these sides.
pub fn linear<T: Sample>(from: &Grid<T>, width: usize, height: usize) -> Grid<T> {
    let channels = from.channels;
    let columns: Vec<_> = (0..width).map(|x| taps::<T>(x, from.width, width)).collect();
    // Two rows follow one another, so they never share a place.
    let mut blended: [(Option<usize>, Vec<T::Sum>); 2] =
        std::array::from_fn(|_| (None, vec![T::Sum::default(); width * channels]));
    let mut to = Grid::new(width, height, channels);
    for y in 0..height {
        let (places, weights) = taps::<T>(y, from.height, height);
        for source in places {
            let (known, sums) = &mut blended[source % 2];
            if *known == Some(source) {
                continue;
            }
            *known = Some(source);
            let row = from.row(source);
            for (sums, (places, weights)) in sums.chunks_exact_mut(channels).zip(&columns) {
                for (channel, sum) in sums.iter_mut().enumerate() {
                    let part =
                        |tap: usize, sum| row[places[tap] * channels + channel].weighted(weights[tap], sum);
                    *sum = part(1, part(0, T::Sum::default()));
                }
            }
        }
        T::of_two(places.map(|source| &blended[source % 2].1[..]), weights, to.row_mut(y));
    }
    to
}

/// The two pixels along one side, and their weights.
fn taps<T: Sample>(index: usize, from: usize, to: usize) -> ([usize; 2], [T::Weight; 2]) {
    let first = (index as f64 * times_longer(from, to)).floor();
    let beyond = ((index + 1) as f64 - (first + 1.0) * (to as f64 / from as f64)) as f32;
    let share = if beyond <= 0.0 { 0.0 } else { beyond - beyond.floor() };
    let place = (first as usize).min(from - 1);
    ([place, (place + 1).min(from - 1)], [T::weight(1.0 - share), T::weight(share)])
}

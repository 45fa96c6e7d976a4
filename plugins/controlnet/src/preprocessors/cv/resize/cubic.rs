//! A cubic of four by four.

use super::super::Grid;
use super::{Blended, times_longer};

/// To these sides; what is looked for beyond the edge is the pixel at it.
pub fn cubic<T: Blended>(from: &Grid<T>, width: usize, height: usize) -> Grid<T> {
    let channels = from.channels;
    let columns: Vec<Taps<T>> = (0..width).map(|x| Taps::of(x, from.width, width)).collect();
    // Four rows follow one another, so they never share a place.
    let mut blended: [(Option<usize>, Vec<T::Sum>); 4] =
        std::array::from_fn(|_| (None, vec![T::Sum::default(); width * channels]));
    let mut to = Grid::new(width, height, channels);
    for y in 0..height {
        let taps = Taps::<T>::of(y, from.height, height);
        for source in taps.places {
            let (known, sums) = &mut blended[source % 4];
            if *known == Some(source) {
                continue;
            }
            *known = Some(source);
            let row = from.row(source);
            for (sums, taps) in sums.chunks_exact_mut(channels).zip(&columns) {
                for (channel, sum) in sums.iter_mut().enumerate() {
                    *sum = (0..4).fold(T::Sum::default(), |sum, tap| {
                        row[taps.places[tap] * channels + channel].weighted(taps.weights[tap], sum)
                    });
                }
            }
        }
        let rows = taps.places.map(|source| &blended[source % 4].1[..]);
        T::of_four(rows, taps.weights, to.row_mut(y));
    }
    to
}

/// What a pixel is made of along one side.
struct Taps<T: Blended> {
    places: [usize; 4],
    weights: [T::Weight; 4],
}

impl<T: Blended> Taps<T> {
    fn of(index: usize, from: usize, to: usize) -> Self {
        let centre = ((index as f64 + 0.5) * times_longer(from, to) - 0.5) as f32;
        let first = centre.floor();
        Self {
            places: std::array::from_fn(|tap| {
                (first as i64 - 1 + tap as i64).clamp(0, from as i64 - 1) as usize
            }),
            weights: shares(centre - first).map(T::weight),
        }
    }
}

/// The shares of four pixels at a place 0…1 between the two in the middle.
fn shares(x: f32) -> [f32; 4] {
    const A: f32 = -0.75;
    let near = |x: f32| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let first = ((A * (x + 1.0) - 5.0 * A) * (x + 1.0) + 8.0 * A) * (x + 1.0) - 4.0 * A;
    let (second, third) = (near(x), near(1.0 - x));
    [first, second, third, 1.0 - first - second - third]
}

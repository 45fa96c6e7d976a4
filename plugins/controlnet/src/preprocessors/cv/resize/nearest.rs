//! Each pixel is another one.

use super::super::Grid;
use super::{Sample, times_longer};

/// To these sides.
pub fn nearest<T: Sample>(from: &Grid<T>, width: usize, height: usize) -> Grid<T> {
    let place = |index: usize, from: usize, to: usize| {
        ((index as f64 * times_longer(from, to)) as usize).min(from - 1)
    };
    let channels = from.channels;
    let columns: Vec<usize> = (0..width).map(|x| place(x, from.width, width) * channels).collect();
    let mut to = Grid::new(width, height, channels);
    for y in 0..height {
        let row = from.row(place(y, from.height, height));
        for (to, &x) in to.row_mut(y).chunks_exact_mut(channels).zip(&columns) {
            to.copy_from_slice(&row[x..x + channels]);
        }
    }
    to
}

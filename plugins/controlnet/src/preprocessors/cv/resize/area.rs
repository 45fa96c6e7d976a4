//! The mean of what a pixel covers.

use super::super::Grid;
use super::linear::linear;
use super::{Sample, times_longer};

/// To these sides; where one of them grows, by [`linear`].
pub fn area<T: Sample>(from: &Grid<T>, width: usize, height: usize) -> Grid<T> {
    let across = times_longer(from.width, width);
    let down = times_longer(from.height, height);
    if across < 1.0 || down < 1.0 {
        return linear(from, width, height);
    }
    let whole = |times: f64| (times - times.round_ties_even()).abs() < f64::EPSILON;
    if whole(across) && whole(down) {
        return of_whole_pixels(from, width, height);
    }
    of_parts(from, width, height)
}

fn of_whole_pixels<T: Sample>(from: &Grid<T>, width: usize, height: usize) -> Grid<T> {
    let channels = from.channels;
    let (across, down) = (from.width / width, from.height / height);
    let share = 1.0 / (across * down) as f32;
    let mut to = Grid::new(width, height, channels);
    let mut sums = vec![0.0; width * channels];
    for y in 0..height {
        if (across, down) == (2, 2) {
            let (above, below) = (from.row(2 * y), from.row(2 * y + 1));
            let step = 2 * channels;
            let pairs = above.chunks_exact(step).zip(below.chunks_exact(step));
            for (to, (above, below)) in to.row_mut(y).chunks_exact_mut(channels).zip(pairs) {
                for (channel, to) in to.iter_mut().enumerate() {
                    let next = channel + channels;
                    *to = T::mean_of_four([above[channel], above[next], below[channel], below[next]]);
                }
            }
            continue;
        }
        sums.fill(0.0);
        for row in down * y..down * (y + 1) {
            let cells = from.row(row).chunks_exact(across * channels);
            for (sums, cell) in sums.chunks_exact_mut(channels).zip(cells) {
                for pixel in cell.chunks_exact(channels) {
                    for (sum, value) in sums.iter_mut().zip(pixel) {
                        *sum += value.float();
                    }
                }
            }
        }
        for (to, sum) in to.row_mut(y).iter_mut().zip(&sums) {
            *to = T::of(sum * share);
        }
    }
    to
}

fn of_parts<T: Sample>(from: &Grid<T>, width: usize, height: usize) -> Grid<T> {
    let channels = from.channels;
    let columns = parts(from.width, width);
    let mut to = Grid::new(width, height, channels);
    let mut across = vec![0.0; width * channels];
    let mut sums = vec![0.0; width * channels];
    let rows = parts(from.height, height);
    for (index, part) in rows.iter().enumerate() {
        across.fill(0.0);
        let row = from.row(part.source);
        for column in &columns {
            let source = &row[column.source * channels..][..channels];
            let sums = &mut across[column.target * channels..][..channels];
            for (sum, value) in sums.iter_mut().zip(source) {
                *sum += value.float() * column.share;
            }
        }
        for (sum, across) in sums.iter_mut().zip(&across) {
            *sum += part.share * across;
        }
        if rows.get(index + 1).is_none_or(|next| next.target != part.target) {
            for (to, sum) in to.row_mut(part.target).iter_mut().zip(&mut sums) {
                *to = T::of(std::mem::take(sum));
            }
        }
    }
    to
}

/// How much of a pixel goes into another.
struct Part {
    source: usize,
    target: usize,
    share: f32,
}

/// Along one side; in the order of targets.
fn parts(from: usize, to: usize) -> Vec<Part> {
    const NOTHING: f64 = 1e-3;
    let times = times_longer(from, to);
    let mut parts = vec![];
    for target in 0..to {
        let start = target as f64 * times;
        let end = start + times;
        let size = times.min(from as f64 - start);
        let last = (end.floor() as usize).min(from - 1);
        let first = (start.ceil() as usize).min(last);
        if first as f64 - start > NOTHING {
            parts.push(Part { source: first - 1, target, share: ((first as f64 - start) / size) as f32 });
        }
        parts.extend((first..last).map(|source| Part { source, target, share: (1.0 / size) as f32 }));
        if end - last as f64 > NOTHING {
            let share = (end - last as f64).min(1.0).min(size) / size;
            parts.push(Part { source: last, target, share: share as f32 });
        }
    }
    parts
}

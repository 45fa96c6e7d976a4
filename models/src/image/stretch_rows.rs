//! A picture brought to another size while its rows come, so that it is never whole in memory: with the bytes of
//! [`Picture::resized`](super::Picture::resized).

use std::collections::VecDeque;

use super::resample::{Axis, Stretch, along_a_row, down_columns};
use super::{Filter, Sample};

/// Rows that come from above, of one number a pixel or of three, on their way to another size.
pub struct StretchRows<S: Sample> {
    across: Axis,
    down: Axis,
    channels: usize,
    /// Rows at their new width, from `first` on, as far as they are needed still.
    kept: VecDeque<Vec<S>>,
    first: usize,
    /// Rows that are made.
    done: usize,
    sums: Vec<S::Sum>,
    row: Vec<S>,
}

impl<S: Sample> StretchRows<S> {
    /// From sides (width, height) to others; all of them are at least 1.
    pub fn new(from: (usize, usize), to: (usize, usize), channels: usize, filter: Filter) -> Self {
        let axis = |begin: usize, size: usize| {
            Stretch { begin: 0, end: begin, size, window: 0..size }.axis(begin, filter)
        };
        let length = to.0 * channels;
        Self {
            across: axis(from.0, to.0),
            down: axis(from.1, to.1),
            channels,
            kept: VecDeque::new(),
            first: 0,
            done: 0,
            sums: vec![S::Sum::from(0); length],
            row: vec![S::default(); length],
        }
    }

    /// Numbers that are kept at once at most.
    pub fn numbers(from: (usize, usize), to: (usize, usize), channels: usize, filter: Filter) -> usize {
        let new = Self::new(from, to, channels, filter);
        let most = new.down.cells.iter().map(|cell| cell.weights.len()).max().unwrap_or_default();
        (most + 2) * to.0 * channels
    }

    /// Takes the next row, of the old width; `finished` is given the rows that this finishes.
    pub fn push(&mut self, row: &[S], finished: &mut dyn FnMut(&[S])) {
        let Self { across, down, channels, kept, first, done, sums, row: made } = self;
        let mut narrow = vec![S::default(); sums.len()];
        match channels {
            1 => along_a_row::<S, 1>(row, &across.cells, &across.weights, &mut narrow),
            3 => along_a_row::<S, 3>(row, &across.cells, &across.weights, &mut narrow),
            _ => along_a_row::<S, 4>(row, &across.cells, &across.weights, &mut narrow),
        }
        kept.push_back(narrow);
        while let Some(cell) = down.cells.get(*done) {
            // What lies before what is still wanted goes.
            while *first < cell.first && kept.pop_front().is_some() {
                *first += 1;
            }
            if *first < cell.first || cell.first + cell.weights.len() > *first + kept.len() {
                break;
            }
            let weights = down.weights.get(cell.weights.clone()).unwrap_or_default();
            down_columns(weights.iter().zip(kept.iter().map(Vec::as_slice)), sums, made);
            finished(made);
            *done += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::image::{Channels, Picture};

    proptest! {
        #[test]
        fn rows_that_come_make_what_the_whole_makes(
            (width, height) in (1usize..40, 1usize..40),
            (wide, high) in (1usize..60, 1usize..60),
            grey in any::<bool>(),
        ) {
            let channels = if grey { Channels::Grey } else { Channels::Rgb };
            let count = channels.count();
            let pixels: Vec<u16> = (0..width * height * count).map(|at| (at * 31_337 % 65_521) as u16).collect();
            for filter in [Filter::Lanczos, Filter::Bicubic] {
                let deep = Picture { width, height, channels, pixels: pixels.clone() };
                check(&deep, (wide, high), filter);
                check(&deep.to_8_bits(), (wide, high), filter);
            }
        }
    }

    fn check<S: Sample>(picture: &Picture<S>, to: (usize, usize), filter: Filter) {
        let count = picture.channels.count();
        let from = (picture.width, picture.height);
        let (mut rows, mut made) = (StretchRows::new(from, to, count, filter), vec![]);
        let most = StretchRows::<S>::numbers(from, to, count, filter) / (to.0 * count);
        for row in picture.pixels.chunks_exact(picture.width * count) {
            rows.push(row, &mut |row| made.extend_from_slice(row));
            assert!(rows.kept.len() <= most, "{from:?} to {to:?}: {} rows", rows.kept.len());
        }
        assert_eq!(made, picture.resized(to.0, to.1, filter).expect("made").pixels, "{from:?} to {to:?}");
    }
}

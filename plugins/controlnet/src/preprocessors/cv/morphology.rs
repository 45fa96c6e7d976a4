//! What shapes become by looking at neighbours.

use super::Grid;
use super::resize::Sample;

/// What is better than all others of each pixel's 3 × 3, by channel; there is nothing beyond an edge.
fn of_nine<T: Sample>(from: &Grid<T>, better: impl Fn(T, T) -> T) -> Grid<T> {
    let (width, height, channels) = (from.width, from.height, from.channels);
    let mut across = from.clone();
    for y in 0..height {
        let (row, to) = (from.row(y), across.row_mut(y));
        for place in channels..width * channels {
            to[place] = better(to[place], row[place - channels]);
            to[place - channels] = better(to[place - channels], row[place]);
        }
    }
    let mut to = across.clone();
    for y in 1..height {
        for (to, value) in to.row_mut(y).iter_mut().zip(across.row(y - 1)) {
            *to = better(*to, *value);
        }
        for (to, value) in to.row_mut(y - 1).iter_mut().zip(across.row(y)) {
            *to = better(*to, *value);
        }
    }
    to
}

/// Shapes without what is narrower than three pixels: eroded, then dilated, by 3 × 3.
pub fn opened<T: Sample>(from: &Grid<T>) -> Grid<T> {
    let eroded = of_nine(from, |left, right| if right < left { right } else { left });
    of_nine(&eroded, |left, right| if right > left { right } else { left })
}

/// Of one channel: what is at least as bright as both neighbours in one of four directions; the rest is 0.
pub fn ridges(from: &Grid<u8>) -> Grid<u8> {
    let (width, height) = (from.width as i64, from.height as i64);
    let mut to = Grid::new(from.width, from.height, 1);
    for y in 0..height {
        for x in 0..width {
            let at = |dx: i64, dy: i64| {
                let (x, y) = (x + dx, y + dy);
                let within = (0..width).contains(&x) && (0..height).contains(&y);
                if within { from.data[(y * width + x) as usize] } else { 0 }
            };
            let value = at(0, 0);
            let along = |dx: i64, dy: i64| value >= at(dx, dy) && value >= at(-dx, -dy);
            if value > 0 && (along(1, 0) || along(0, 1) || along(1, 1) || along(1, -1)) {
                to.data[(y * width + x) as usize] = value;
            }
        }
    }
    to
}

//! Lines of one pixel, by patterns of 3 × 3 whose middle goes.

use super::Grid;

/// What a neighbour must be: 1 white, −1 black, 0 either.
type Pattern = [[i8; 3]; 3];

const THINNING: [Pattern; 2] = [[[-1, -1, -1], [0, 1, 0], [1, 1, 1]], [[0, -1, -1], [1, 1, -1], [0, 1, 0]]];
/// Ends of lines.
const PRUNING: [Pattern; 2] =
    [[[-1, -1, -1], [-1, 1, -1], [0, 0, -1]], [[-1, -1, -1], [-1, 1, -1], [-1, 0, 0]]];
/// How often all patterns are looked for.
const MOST_TIMES: usize = 32;

/// Thins what is white (255, one channel); `prune` takes a pixel off each end of a line, too.
pub fn thinned(from: &Grid<u8>, prune: bool) -> Grid<u8> {
    let mut shape = Shape::of(from);
    for _ in 0..MOST_TIMES {
        if !shape.without(&THINNING) {
            break;
        }
    }
    if prune {
        shape.without(&PRUNING);
    }
    shape.grid()
}

/// White pixels of a picture.
struct Shape {
    width: usize,
    height: usize,
    /// With a frame of what is neither white nor black: it fits every pattern.
    places: Vec<Place>,
    white: Vec<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    White,
    Black,
    Beyond,
}

impl Shape {
    fn of(from: &Grid<u8>) -> Self {
        let (width, height) = (from.width, from.height);
        let stride = width + 2;
        let mut places = vec![Place::Beyond; stride * (height + 2)];
        let mut white = vec![];
        for y in 0..height {
            for (x, value) in from.row(y).iter().enumerate() {
                let at = (y + 1) * stride + x + 1;
                places[at] = if *value > 0 { Place::White } else { Place::Black };
                if *value > 0 {
                    white.push(at);
                }
            }
        }
        Self { width, height, places, white }
    }

    /// Takes away what fits each of the patterns, turned four ways, one after the other; whether there was any.
    fn without(&mut self, patterns: &[Pattern; 2]) -> bool {
        let mut patterns = *patterns;
        let mut found = false;
        for _ in 0..4 {
            for pattern in &patterns {
                found |= self.without_one(pattern);
            }
            patterns = patterns.map(|pattern| turned(&pattern));
        }
        found
    }

    fn without_one(&mut self, pattern: &Pattern) -> bool {
        let stride = self.width + 2;
        let wanted: Vec<(isize, Place)> = (0..9)
            .filter_map(|index| {
                let (row, column) = (index / 3, index % 3);
                let offset = (row as isize - 1) * stride as isize + column as isize - 1;
                match pattern[row][column] {
                    1 => Some((offset, Place::White)),
                    -1 => Some((offset, Place::Black)),
                    _ => None,
                }
            })
            .collect();
        let places = &self.places;
        let fits = |at: usize| {
            wanted.iter().all(|(offset, wanted)| {
                let place = places[at.wrapping_add_signed(*offset)];
                place == *wanted || place == Place::Beyond
            })
        };
        let gone: Vec<usize> = self.white.iter().copied().filter(|at| fits(*at)).collect();
        for at in &gone {
            self.places[*at] = Place::Black;
        }
        if !gone.is_empty() {
            self.white.retain(|at| self.places[*at] == Place::White);
        }
        !gone.is_empty()
    }

    fn grid(&self) -> Grid<u8> {
        let row = |y: usize| self.places[(y + 1) * (self.width + 2) + 1..][..self.width].iter();
        let data = (0..self.height)
            .flat_map(row)
            .map(|place| if *place == Place::White { 255 } else { 0 })
            .collect();
        Grid { width: self.width, height: self.height, channels: 1, data }
    }
}

/// A quarter turn to the left.
fn turned(pattern: &Pattern) -> Pattern {
    std::array::from_fn(|row| std::array::from_fn(|column| pattern[column][2 - row]))
}

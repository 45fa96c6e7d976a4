//! Restored faces laid over the picture that they were cut out of, row by row: only rows that a face is in are reckoned with.

use std::ops::Range;

use super::align::{Matrix, inverse};
use super::warp::{colours_at, places, value_at};
use super::{Colours, Plane};

/// A restored face, and where it belongs.
pub struct Laid {
    face: Colours<'static>,
    /// How much of it is seen at each of its pixels.
    mask: Plane,
    /// Where a pixel of the picture is in the face.
    way: Matrix,
    /// What of the picture it may cover.
    rows: Range<usize>,
    columns: Range<usize>,
}

impl Laid {
    /// One that `matrix` brought from a picture of this size to where it lies.
    pub fn new(
        face: Colours<'static>,
        mask: Plane,
        matrix: &Matrix,
        (width, height): (usize, usize),
    ) -> Self {
        let back = inverse(matrix);
        let [[a, b, x], [c, d, y]] = back;
        // A pixel beyond its borders something of it is seen still, and places are rounded.
        let (left, right, top, bottom) = (-2.0, face.width as f64 + 1.0, -2.0, face.height as f64 + 1.0);
        let corners = [(left, top), (right, top), (left, bottom), (right, bottom)];
        let across = corners.map(|(column, row)| a * column + b * row + x);
        let down = corners.map(|(column, row)| c * column + d * row + y);
        let (columns, rows) = (covered(across, width), covered(down, height));
        Self { face, mask, way: inverse(&back), rows, columns }
    }

    /// Bytes that one of faces of this side takes.
    pub fn bytes(side: usize) -> usize {
        (3 + size_of::<f64>()) * side * side
    }
}

/// Pixels of a side between the first and the last of these places.
fn covered(places: [f64; 4], size: usize) -> Range<usize> {
    let first = places.into_iter().fold(f64::INFINITY, f64::min);
    let last = places.into_iter().fold(f64::NEG_INFINITY, f64::max);
    let within = |place: f64| place.clamp(0.0, size as f64) as usize;
    within((first - 1.0).floor())..within((last + 2.0).ceil())
}

/// The picture with faces over it, each over those before, into `made`. What lies between two levels is cut off once, at the end.
/// `check` is asked row by row, and ends it by an error.
pub fn lay<E>(
    picture: &Colours<'_>,
    faces: &[Laid],
    made: &mut [u8],
    check: impl Fn() -> Result<(), E>,
) -> Result<(), E> {
    let length = (3 * picture.width).max(1);
    let mut line: Vec<f64> = vec![];
    let rows = picture.pixels.chunks_exact(length).zip(made.chunks_exact_mut(length));
    for (row, (from, to)) in rows.enumerate() {
        let mut over = faces.iter().filter(|laid| laid.rows.contains(&row)).peekable();
        if over.peek().is_none() {
            to.copy_from_slice(from);
            continue;
        }
        check()?;
        line.clear();
        line.extend(from.iter().copied().map(f64::from));
        for Laid { face, mask, way, columns, .. } in over {
            let pixels = line.chunks_exact_mut(3).skip(columns.start);
            for (seen, place) in pixels.zip(places(way, row, columns.clone())) {
                let share = value_at(mask, place);
                for (seen, face) in seen.iter_mut().zip(colours_at(face, place, [0; 3])) {
                    *seen = share * f64::from(face) + (1.0 - share) * *seen;
                }
            }
        }
        for (to, value) in to.iter_mut().zip(&line) {
            *to = *value as u8;
        }
    }
    Ok(())
}

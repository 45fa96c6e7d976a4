//! Masks over a canvas, seen by what shows a part of it.

use std::sync::Arc;

use super::evaluation::Region;
use crate::Result;
use crate::networks::unet_call::between;
use crate::tensor::Tensor;

/// The part of a mask over the canvas that a region shows; nothing counts beyond the canvas.
pub(super) fn of_region(mask: Option<&Tensor>, region: Region) -> Result<Option<Arc<Tensor>>> {
    let Some(mask) = mask else { return Ok(None) };
    let Region { x, y, width, height, canvas_width, canvas_height } = region;
    if (x, y, width, height) == (0, 0, canvas_width, canvas_height) {
        return Ok(Some(Arc::new(mask.clone())));
    }
    let (rows, columns) = (mask.dim(0), mask.dim(1));
    let value =
        |row: usize, column: usize| mask.values().get(row * columns + column).copied().unwrap_or_default();
    // As the whole canvas would be: bilinear, at the centres of its pixels.
    let place = |at: i64, canvas: usize, places: usize| {
        let at = usize::try_from(at).ok().filter(|at| *at < canvas)?;
        Some(between(at, canvas, places))
    };
    let mut part = Vec::with_capacity(width * height);
    for row in 0..height {
        let of_row = place(y + row as i64, canvas_height, rows);
        for column in 0..width {
            let both = of_row.zip(place(x + column as i64, canvas_width, columns));
            part.push(both.map_or(0.0, |((top, bottom, down), (left, right, along))| {
                let upper = value(top, left) * (1.0 - along) + value(top, right) * along;
                let lower = value(bottom, left) * (1.0 - along) + value(bottom, right) * along;
                upper * (1.0 - down) + lower * down
            }));
        }
    }
    Ok(Some(Arc::new(Tensor::new(part, [height, width])?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tile_sees_its_part_of_a_mask() {
        let mask = Tensor::new((0..16).map(|value| value as f32).collect(), [4, 4]).expect("fits");
        let whole = Region::whole(8, 8);
        assert_eq!(of_region(Some(&mask), whole).expect("made").as_deref(), Some(&mask));
        let tile = Region { x: 4, y: -2, width: 6, height: 4, ..whole };
        let part = of_region(Some(&mask), tile).expect("made").expect("there");
        #[rustfmt::skip]
        let expected = [
            0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
            0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
            1.75, 2.25, 2.75, 3.0, 0.0, 0.0,
            2.75, 3.25, 3.75, 4.0, 0.0, 0.0,
        ];
        assert_eq!((part.dims(), part.values()), (&[4, 6][..], &expected[..]));
        assert_eq!(of_region(None, tile).expect("made"), None);
    }
}

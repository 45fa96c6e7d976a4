//! Masks over a canvas, seen by what shows a part of it.

use std::sync::Arc;

use super::evaluation::Region;
use crate::Result;
use crate::tensor::Tensor;

/// The part of a mask over the canvas that a region shows; nothing counts beyond the canvas.
pub(super) fn of_region(mask: Option<&Tensor>, region: Region) -> Result<Option<Arc<Tensor>>> {
    let Some(mask) = mask else { return Ok(None) };
    let Region { x, y, width, height, canvas_width, canvas_height } = region;
    if (x, y, width, height) == (0, 0, canvas_width, canvas_height) {
        return Ok(Some(Arc::new(mask.clone())));
    }
    let (rows, columns) = (mask.dim(0), mask.dim(1));
    // The nearest of the mask's places for each pixel of the region.
    let place = |at: i64, canvas: usize, places: usize| {
        let at = usize::try_from(at).ok().filter(|at| *at < canvas)?;
        Some((at * places / canvas.max(1)).min(places.saturating_sub(1)))
    };
    let mut part = Vec::with_capacity(width * height);
    for row in 0..height {
        let from_row = place(y + row as i64, canvas_height, rows);
        for column in 0..width {
            let from = from_row.zip(place(x + column as i64, canvas_width, columns));
            let value = from.and_then(|(row, column)| mask.values().get(row * columns + column));
            part.push(value.copied().unwrap_or_default());
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
            2.0, 2.0, 3.0, 3.0, 0.0, 0.0,
            2.0, 2.0, 3.0, 3.0, 0.0, 0.0,
        ];
        assert_eq!((part.dims(), part.values()), (&[4, 6][..], &expected[..]));
        assert_eq!(of_region(None, tile).expect("made"), None);
    }
}

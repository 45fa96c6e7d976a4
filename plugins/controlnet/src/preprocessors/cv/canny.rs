//! Canny's edges.

use super::Grid;

/// tan 22.5°, in 32768ths.
const TANGENT: i32 = 13573;
const BITS: u32 = 15;

/// What a pixel is, on the way.
const MAYBE: u8 = 0;
const NONE: u8 = 1;
const EDGE: u8 = 2;

/// Edges (255) of a picture of any number of channels, by Sobel's gradients of 3 × 3 and |dx| + |dy|, each pixel by the channel whose
/// gradient is largest. What is above `low` and joined to what is above `high` counts.
pub fn canny(from: &Grid<u8>, low: i32, high: i32) -> Grid<u8> {
    // No gradient is as large as that.
    let limit = |value: i32| value.clamp(0, i32::from(i16::MAX)) as i16;
    let (low, high) = (limit(low.min(high)), limit(low.max(high)));
    let (width, height) = (from.width, from.height);
    // A frame of one pixel around all spares looking whether there is a neighbour.
    let stride = width + 2;
    let mut map = vec![NONE; stride * (height + 2)];
    let mut edges = vec![];
    let mut sobel = Sobel::new(from);
    // Above, this one, below.
    let mut rows = [Gradients::new(width), Gradients::new(width), Gradients::new(width)];
    sobel.row(0, &mut rows[1]);
    for y in 0..height {
        if y + 1 < height {
            sobel.row(y + 1, &mut rows[2]);
        } else {
            rows[2].sizes.fill(0);
        }
        let [above, row, below] = &rows;
        let line = &mut map[(y + 1) * stride + 1..][..width];
        for (x, (place, &size)) in line.iter_mut().zip(&row.sizes[1..]).enumerate() {
            if size <= low || !row.peaks(x, above, below) {
                continue;
            }
            *place = MAYBE;
            if size > high {
                *place = EDGE;
                edges.push((y + 1) * stride + x + 1);
            }
        }
        rows.rotate_left(1);
    }
    while let Some(place) = edges.pop() {
        let corner = place - stride - 1;
        for row in 0..3 {
            for next in corner + row * stride..corner + row * stride + 3 {
                if map[next] == MAYBE {
                    map[next] = EDGE;
                    edges.push(next);
                }
            }
        }
    }
    let mut to = Grid::new(width, height, 1);
    for y in 0..height {
        for (to, place) in to.row_mut(y).iter_mut().zip(&map[(y + 1) * stride + 1..]) {
            *to = if *place == EDGE { 255 } else { 0 };
        }
    }
    to
}

/// Of a row of pixels: of the channel where they are largest.
struct Gradients {
    across: Vec<i16>,
    down: Vec<i16>,
    /// With a 0 at both ends.
    sizes: Vec<i16>,
}

impl Gradients {
    fn new(width: usize) -> Self {
        Self { across: vec![0; width], down: vec![0; width], sizes: vec![0; width + 2] }
    }

    /// Whether a gradient is larger than its neighbours along it.
    fn peaks(&self, x: usize, above: &Self, below: &Self) -> bool {
        let (across, down) = (i32::from(self.across[x]), i32::from(self.down[x]));
        let (flat, steep) = (across.abs() * TANGENT, down.abs() << BITS);
        // Within the two ends.
        let at = x + 1;
        let size = self.sizes[at];
        if steep < flat {
            return size > self.sizes[at - 1] && size >= self.sizes[at + 1];
        }
        if steep > flat + (across.abs() << (BITS + 1)) {
            return size > above.sizes[at] && size >= below.sizes[at];
        }
        let (before, after) = if (across ^ down) < 0 { (at + 1, at - 1) } else { (at - 1, at + 1) };
        size > above.sizes[before] && size > below.sizes[after]
    }
}

/// Gradients of one row after the other; beyond an edge is the pixel at it.
struct Sobel<'a> {
    from: &'a Grid<u8>,
    /// Of each channel three rows, with a pixel more at both ends: above, this one, below.
    planes: Vec<[Vec<i16>; 3]>,
}

impl<'a> Sobel<'a> {
    fn new(from: &'a Grid<u8>) -> Self {
        let plane = || std::array::from_fn(|_| vec![0; from.width + 2]);
        let mut sobel = Self { from, planes: (0..from.channels).map(|_| plane()).collect() };
        // As if row −1 had been looked at.
        sobel.next(0);
        sobel.next(0);
        sobel
    }

    /// Goes one row down: `y` is below.
    fn next(&mut self, y: usize) {
        let row = self.from.row(y.min(self.from.height - 1));
        for (channel, plane) in self.planes.iter_mut().enumerate() {
            plane.rotate_left(1);
            let to = &mut plane[2];
            for (to, pixel) in to[1..].iter_mut().zip(row.chunks_exact(self.from.channels)) {
                *to = i16::from(pixel[channel]);
            }
            let end = to.len() - 1;
            (to[0], to[end]) = (to[1], to[end - 1]);
        }
    }

    /// Row `y`, the one after that which was asked for last.
    fn row(&mut self, y: usize, to: &mut Gradients) {
        self.next(y + 1);
        let width = self.from.width;
        let sizes = &mut to.sizes[1..=width];
        let (to_across, to_down) = (&mut to.across[..width], &mut to.down[..width]);
        sizes.fill(-1);
        for [above, row, below] in &self.planes {
            let (above, row, below) = (&above[..width + 2], &row[..width + 2], &below[..width + 2]);
            for x in 0..width {
                let smooth = |x: usize| above[x] + 2 * row[x] + below[x];
                let change = |x: usize| below[x] - above[x];
                let across = smooth(x + 2) - smooth(x);
                let down = change(x) + 2 * change(x + 1) + change(x + 2);
                let size = across.abs() + down.abs();
                let is_larger = size > sizes[x];
                sizes[x] = if is_larger { size } else { sizes[x] };
                to_across[x] = if is_larger { across } else { to_across[x] };
                to_down[x] = if is_larger { down } else { to_down[x] };
            }
        }
    }
}

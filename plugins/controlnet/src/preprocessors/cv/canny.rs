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
    let (low, high) = (low.min(high), low.max(high));
    let (width, height) = (from.width, from.height);
    // A frame of one pixel around all spares looking whether there is a neighbour.
    let stride = width + 2;
    let mut map = vec![NONE; stride * (height + 2)];
    let mut edges = vec![];
    let mut rows = [Gradients::new(width), Gradients::new(width), Gradients::new(width)];
    let mut sobel = Sobel::new(from);
    sobel.row(0, &mut rows[1]);
    for y in 0..height {
        // Above, this one, below.
        if y + 1 < height {
            sobel.row(y + 1, &mut rows[2]);
        } else {
            rows[2].sizes.fill(0);
        }
        let [above, row, below] = &rows;
        let line = &mut map[(y + 1) * stride + 1..][..width];
        for (x, place) in line.iter_mut().enumerate() {
            // Within the frame.
            let at = x + 1;
            let size = row.sizes[at];
            if size <= low || !row.peaks(x, above, below) {
                continue;
            }
            *place = MAYBE;
            if size > high {
                *place = EDGE;
                edges.push((y + 1) * stride + at);
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
    let line = |y: usize| map[(y + 1) * stride + 1..][..width].iter();
    let data = (0..height).flat_map(line).map(|place| if *place == EDGE { 255 } else { 0 }).collect();
    Grid { width, height, channels: 1, data }
}

/// Of a row of pixels.
struct Gradients {
    across: Vec<i16>,
    down: Vec<i16>,
    /// With a 0 at both ends.
    sizes: Vec<i32>,
}

impl Gradients {
    fn new(width: usize) -> Self {
        Self { across: vec![0; width], down: vec![0; width], sizes: vec![0; width + 2] }
    }

    /// Whether a gradient is larger than its neighbours along it.
    fn peaks(&self, x: usize, above: &Self, below: &Self) -> bool {
        let (across, down) = (i32::from(self.across[x]), i32::from(self.down[x]));
        let (flat, steep) = (across.abs() * TANGENT, down.abs() << BITS);
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
    /// Of a row with a pixel more at both ends: 1 2 1 down a column, and below less above.
    smooth: Vec<i16>,
    change: Vec<i16>,
    across: Vec<i16>,
    down: Vec<i16>,
}

impl<'a> Sobel<'a> {
    fn new(from: &'a Grid<u8>) -> Self {
        let wide = || vec![0; (from.width + 2) * from.channels];
        let narrow = || vec![0; from.width * from.channels];
        Self { from, smooth: wide(), change: wide(), across: narrow(), down: narrow() }
    }

    fn row(&mut self, y: usize, to: &mut Gradients) {
        let Self { from, smooth, change, across, down } = self;
        let channels = from.channels;
        let inner = channels..channels + across.len();
        let (above, row, below) =
            (from.row(y.saturating_sub(1)), from.row(y), from.row((y + 1).min(from.height - 1)));
        let sums = smooth[inner.clone()].iter_mut().zip(&mut change[inner]);
        for ((sums, above), (row, below)) in sums.zip(above).zip(row.iter().zip(below)) {
            let [above, row, below] = [*above, *row, *below].map(i16::from);
            *sums.0 = above + 2 * row + below;
            *sums.1 = below - above;
        }
        for row in [&mut *smooth, &mut *change] {
            row.copy_within(channels..2 * channels, 0);
            let end = row.len() - channels;
            row.copy_within(end - channels..end, end);
        }
        for ((to, before), after) in across.iter_mut().zip(&*smooth).zip(&smooth[2 * channels..]) {
            *to = after - before;
        }
        let places = change.iter().zip(&change[channels..]).zip(&change[2 * channels..]);
        for (to, ((before, at), after)) in down.iter_mut().zip(places) {
            *to = before + 2 * at + after;
        }
        let pixels = across.chunks_exact(channels).zip(down.chunks_exact(channels));
        let targets = to.across.iter_mut().zip(&mut to.down).zip(&mut to.sizes[1..]);
        for ((across, down), ((to_across, to_down), size)) in pixels.zip(targets) {
            *size = -1;
            for (across, down) in across.iter().zip(down) {
                let own = i32::from(across.abs()) + i32::from(down.abs());
                if own > *size {
                    (*size, *to_across, *to_down) = (own, *across, *down);
                }
            }
        }
    }
}

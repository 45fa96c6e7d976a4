//! Pictures resized as A1111 does it, by Pillow's Lanczos in 8 bits.

use crate::preprocessors::Picture;
use crate::preprocessors::hint::ResizeMode;

/// How far Lanczos' window reaches.
const REACH: f64 = 3.0;
/// Bits of the fractions that weights are.
const BITS: u32 = 32 - 8 - 2;

/// A picture of `width` × `height`, neither of them 0.
pub fn resized(picture: &Picture, width: usize, height: usize, mode: ResizeMode) -> Picture {
    let (own_width, own_height) = (picture.width.max(1), picture.height.max(1));
    let (ratio, own) = (width as f64 / height as f64, own_width as f64 / own_height as f64);
    let (to_width, to_height) = (own_width * height / own_height, own_height * width / own_width);
    match mode {
        ResizeMode::Just => lanczos(picture, width, height),
        ResizeMode::Crop => {
            let to_width = if ratio > own { width } else { to_width };
            let to_height = if ratio <= own { height } else { to_height };
            laid(&lanczos(picture, to_width.max(1), to_height.max(1)), width, height, false)
        }
        ResizeMode::Fill => {
            let to_width = if ratio < own { width } else { to_width };
            let to_height = if ratio >= own { height } else { to_height };
            laid(&lanczos(picture, to_width.max(1), to_height.max(1)), width, height, true)
        }
    }
}

/// Part of a picture; black beyond it.
pub fn part(picture: &Picture, (left, top): (usize, usize), (width, height): (usize, usize)) -> Picture {
    let pixel = |x: usize, y: usize| {
        let at = (x < picture.width && y < picture.height).then_some((y * picture.width + x) * 3);
        at.and_then(|at| picture.data.get(at..at + 3)).unwrap_or(&[0; 3])
    };
    let places = (0..height).flat_map(|y| (0..width).map(move |x| (left + x, top + y)));
    let data = places.flat_map(|(x, y)| pixel(x, y)).copied().collect();
    Picture { width, height, data }
}

/// In the middle of `width` × `height`; what is not there is black, or, if it is `filled`, as its edge.
fn laid(picture: &Picture, width: usize, height: usize, filled: bool) -> Picture {
    let middle = |wanted: usize, own: usize| (wanted as i64 - own as i64).div_euclid(2);
    // What is cut off by Python's division, and laid by A1111's halves.
    let offset = |wanted: usize, own: usize| {
        if own > wanted { middle(wanted, own) } else { wanted as i64 / 2 - own as i64 / 2 }
    };
    let (left, top) = (middle(width, picture.width), middle(height, picture.height));
    let (fill_left, fill_top) = (offset(width, picture.width), offset(height, picture.height));
    let mut data = Vec::with_capacity(width * height * 3);
    for y in 0..height as i64 {
        for x in 0..width as i64 {
            let (own_x, own_y) = (x - left, y - top);
            let is_within =
                (0..picture.width as i64).contains(&own_x) && (0..picture.height as i64).contains(&own_y);
            let at = if is_within {
                Some((own_x, own_y))
            } else if filled && (fill_left > 0 || fill_top > 0) {
                Some((own_x.clamp(0, picture.width as i64 - 1), own_y.clamp(0, picture.height as i64 - 1)))
            } else {
                None
            };
            let at = at.map(|(x, y)| (y as usize * picture.width + x as usize) * 3);
            data.extend(at.and_then(|at| picture.data.get(at..at + 3)).unwrap_or(&[0; 3]));
        }
    }
    Picture { width, height, data }
}

/// First along, then down, each rounded to 8 bits.
fn lanczos(picture: &Picture, width: usize, height: usize) -> Picture {
    let mut data = picture.data.clone();
    if width != picture.width {
        let rows = data.chunks_exact(picture.width * 3);
        let along = weights(picture.width, width);
        data = rows
            .flat_map(|row| along.iter().flat_map(|window| window.of(|at| &row[at * 3..at * 3 + 3])))
            .collect();
    }
    if height != picture.height {
        let down = weights(picture.height, height);
        let row = width * 3;
        let columns = |window: &Window| {
            (0..width)
                .flat_map(|x| window.of(|at| &data[at * row + x * 3..at * row + x * 3 + 3]))
                .collect::<Vec<_>>()
        };
        data = down.iter().flat_map(columns).collect();
    }
    Picture { width, height, data }
}

/// Which places make one, and how much of each.
struct Window {
    from: usize,
    weights: Vec<i32>,
}

impl Window {
    fn of<'a>(&self, pixel: impl Fn(usize) -> &'a [u8]) -> [u8; 3] {
        let mut sums = [1i32 << (BITS - 1); 3];
        for (at, weight) in (self.from..).zip(&self.weights) {
            for (sum, value) in sums.iter_mut().zip(pixel(at)) {
                *sum += i32::from(*value) * weight;
            }
        }
        sums.map(|sum| (sum >> BITS).clamp(0, 255) as u8)
    }
}

/// Those of `to` places over `from` ones.
fn weights(from: usize, to: usize) -> Vec<Window> {
    let scale = from as f64 / to as f64;
    let wide = scale.max(1.0);
    let reach = REACH * wide;
    let window = |place: usize| {
        let centre = (place as f64 + 0.5) * scale;
        let least = ((centre - reach + 0.5) as i64).max(0) as usize;
        let most = ((centre + reach + 0.5) as i64).clamp(0, from as i64) as usize;
        let raw: Vec<f64> = (least..most).map(|at| kernel((at as f64 - centre + 0.5) / wide)).collect();
        let sum: f64 = raw.iter().sum();
        let fraction = |weight: &f64| {
            let fraction = weight / sum * f64::from(1u32 << BITS);
            (fraction + if fraction < 0.0 { -0.5 } else { 0.5 }) as i32
        };
        Window { from: least, weights: raw.iter().map(fraction).collect() }
    };
    (0..to).map(window).collect()
}

fn kernel(x: f64) -> f64 {
    let sinc =
        |x: f64| if x == 0.0 { 1.0 } else { (x * std::f64::consts::PI).sin() / (x * std::f64::consts::PI) };
    if (-REACH..REACH).contains(&x) { sinc(x) * sinc(x / REACH) } else { 0.0 }
}

//! How a face is to be turned, enlarged and moved to lie where networks know faces.

/// `[a, b, x; c, d, y]`: where a place comes to lie.
pub type Matrix = [[f64; 3]; 2];

/// Where eyes, nose and the corners of the mouth lie in a face of 512.
const TEMPLATE: [[f64; 2]; 5] = [
    [192.98138, 239.94708],
    [318.90277, 240.1936],
    [256.63416, 314.01935],
    [201.26117, 371.41043],
    [313.08905, 371.15118],
];

/// The side of that face.
const TEMPLATE_SIDE: f64 = 512.0;

/// Draws of two points: what OpenCV reckons to find, 99 of 100 times, a pair without outliers among points of which 45 in 100 are.
const DRAWS: usize = 13;

/// How OpenCV's random numbers begin, and what each is made by.
const SEED: u64 = u64::MAX;
const MULTIPLIER: u64 = 4_164_903_690;

/// How five points come to lie as in a face of this side.
///
/// Points that a detector got wrong are not to turn the face: this is OpenCV's `estimateAffinePartial2D` with `LMEDS`, as facexlib
/// calls it. Of pairs that are drawn, that counts by which the median of the squared distances is least; then the points near
/// enough by it are fitted by least squares. With five points there are ten pairs, of which OpenCV draws some, by random numbers
/// that always are the same. All ten would be fairer; drawn the same, faces lie as they do in A1111.
///
/// `None` where the points tell nothing, as when all are one.
pub fn to_template(points: &[[f32; 2]; 5], side: usize) -> Option<Matrix> {
    // OpenCV has both in f32.
    let template = TEMPLATE.map(|place| place.map(|at| (at * side as f64 / TEMPLATE_SIDE) as f32));
    let mut random = Random(SEED);
    let mut best: Option<(Matrix, f32)> = None;
    for _ in 0..DRAWS {
        let first = random.below(5);
        let second = loop {
            let second = random.below(5);
            if second != first {
                break second;
            }
        };
        let pair = [first, second];
        let matrix = of_pair(pair.map(|at| points[at]), pair.map(|at| template[at]));
        let mut distances = distances(&matrix, points, &template);
        distances.sort_by(f32::total_cmp);
        let median = distances[2];
        if best.as_ref().is_none_or(|(_, least)| median < *least) {
            best = Some((matrix, median));
        }
    }
    let (matrix, median) = best?;
    // Of points without an end nothing comes.
    if !median.is_finite() {
        return None;
    }
    let deviation = (2.5 * 1.4826 * (1.0 + 5.0 / 3.0) * f64::from(median).sqrt()).max(0.001);
    let limit = (deviation * deviation) as f32;
    let near = distances(&matrix, points, &template).map(|distance| distance <= limit);
    let chosen: Vec<_> = points.iter().zip(&template).zip(near).filter(|(_, near)| *near).collect();
    let fitted = least_squares(chosen.into_iter().map(|((from, to), _)| (from, to)));
    Some(fitted.unwrap_or(matrix)).filter(invertible)
}

/// OpenCV's random numbers: a multiplication with carry.
struct Random(u64);

impl Random {
    fn below(&mut self, count: u32) -> usize {
        self.0 = u64::from(self.0 as u32).wrapping_mul(MULTIPLIER).wrapping_add(self.0 >> 32);
        (self.0 as u32 % count) as usize
    }
}

/// The one that brings two points to two others.
fn of_pair(from: [[f32; 2]; 2], to: [[f32; 2]; 2]) -> Matrix {
    let ([[x1, y1], [x2, y2]], [[u1, v1], [u2, v2]]) =
        (from.map(|point| point.map(f64::from)), to.map(|point| point.map(f64::from)));
    let d = 1.0 / ((x1 - x2) * (x1 - x2) + (y1 - y2) * (y1 - y2));
    let s0 = d * ((u1 - u2) * (x1 - x2) + (v1 - v2) * (y1 - y2));
    let s1 = d * ((v1 - v2) * (x1 - x2) - (u1 - u2) * (y1 - y2));
    let s2 = d
        * ((v1 - v2) * (x1 * y2 - x2 * y1)
            - (u1 * y2 - u2 * y1) * (y1 - y2)
            - (u1 * x2 - u2 * x1) * (x1 - x2));
    let s3 = d
        * (-(u1 - u2) * (x1 * y2 - x2 * y1)
            - (v1 * x2 - v2 * x1) * (x1 - x2)
            - (v1 * y2 - v2 * y1) * (y1 - y2));
    [[s0, -s1, s2], [s1, s0, s3]]
}

/// Squared, of each point from where it should come to lie.
fn distances(matrix: &Matrix, from: &[[f32; 2]; 5], to: &[[f32; 2]; 5]) -> [f32; 5] {
    let [[a, b, x], [c, d, y]] = matrix.map(|row| row.map(|number| number as f32));
    let mut distances = [0.0; 5];
    for ((distance, [from_x, from_y]), [to_x, to_y]) in distances.iter_mut().zip(from).zip(to) {
        let right = a * from_x + b * from_y + x - to_x;
        let down = c * from_x + d * from_y + y - to_y;
        *distance = right * right + down * down;
    }
    distances
}

/// That by which the squared distances together are least.
fn least_squares<'a>(pairs: impl Iterator<Item = (&'a [f32; 2], &'a [f32; 2])>) -> Option<Matrix> {
    let pairs: Vec<_> = pairs.map(|(from, to)| (from.map(f64::from), to.map(f64::from))).collect();
    if pairs.len() < 2 {
        return None;
    }
    let count = pairs.len() as f64;
    let (mut from, mut to) = ([0.0; 2], [0.0; 2]);
    for (of, towards) in &pairs {
        for axis in [0, 1] {
            from[axis] += of[axis] / count;
            to[axis] += towards[axis] / count;
        }
    }
    let ([x, y], [u, v]) = (from, to);
    let (mut spread, mut along, mut across) = (0.0, 0.0, 0.0);
    for ([from_x, from_y], [to_x, to_y]) in &pairs {
        let (from_x, from_y, to_x, to_y) = (from_x - x, from_y - y, to_x - u, to_y - v);
        spread += from_x * from_x + from_y * from_y;
        along += from_x * to_x + from_y * to_y;
        across += from_x * to_y - from_y * to_x;
    }
    let (a, c) = (along / spread, across / spread);
    let matrix = [[a, -c, u - a * x + c * y], [c, a, v - c * x - a * y]];
    matrix.iter().flatten().all(|number| number.is_finite()).then_some(matrix)
}

/// Whether there is a way back.
fn invertible(matrix: &Matrix) -> bool {
    let [[a, b, _], [c, d, _]] = matrix;
    let determinant = a * d - b * c;
    determinant.is_normal() && matrix.iter().flatten().all(|number| number.is_finite())
}

/// The way back.
pub fn inverse(matrix: &Matrix) -> Matrix {
    let [[a, b, x], [c, d, y]] = *matrix;
    let share = 1.0 / (a * d - b * c);
    let (a, d) = (d * share, a * share);
    let (b, c) = (-b * share, -c * share);
    [[a, b, -a * x - b * y], [c, d, -c * x - d * y]]
}

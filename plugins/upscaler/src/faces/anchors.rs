//! What `RetinaFace`'s numbers say: each place of three grids has two anchors, which boxes and points are told from.

/// Steps of the grids, in pixels, with the sides of their anchors.
const GRIDS: [(usize, [f32; 2]); 3] = [(8, [16.0, 32.0]), (16, [64.0, 128.0]), (32, [256.0, 512.0])];

/// By how much of an anchor's side a number moves its centre, and by how much it stretches it.
const MOVES: f32 = 0.1;
const STRETCHES: f32 = 0.2;

/// A face that was found, in pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Face {
    /// Left, top, right and bottom.
    pub bounds: [f32; 4],
    /// Eyes, nose and the corners of the mouth; left ones, as one sees them, first.
    pub points: [[f32; 2]; 5],
    pub score: f32,
}

/// How many anchors a picture has.
pub fn count(width: usize, height: usize) -> usize {
    GRIDS.iter().map(|(step, sides)| width.div_ceil(*step) * height.div_ceil(*step) * sides.len()).sum()
}

/// The faces in a picture whose score is above `least`, the likeliest first; of those that share more than `overlap` of what they
/// cover together the likeliest; so many at `most`. `boxes` has 4 numbers of each anchor, `scores` 2, `points` 10.
pub fn faces(
    (width, height): (usize, usize),
    [boxes, scores, points]: [&[f32]; 3],
    (least, overlap): (f32, f32),
    most: usize,
) -> Vec<Face> {
    let size = [width as f32, height as f32];
    let numbers = boxes.chunks_exact(4).zip(scores.chunks_exact(2)).zip(points.chunks_exact(10));
    let mut found: Vec<Face> = anchors(width, height)
        .zip(numbers)
        .filter_map(|((centre, sides), ((moved, chances), points))| {
            let score = *chances.get(1)?;
            (score > least).then(|| face(size, centre, sides, moved, points, score))
        })
        .collect();
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<Face> = vec![];
    for face in found {
        if kept.len() == most {
            break;
        }
        if kept.iter().all(|other| shared(&face.bounds, &other.bounds) <= overlap) {
            kept.push(face);
        }
    }
    kept
}

/// Centres and sides, as shares of the picture.
fn anchors(width: usize, height: usize) -> impl Iterator<Item = ([f32; 2], [f32; 2])> {
    let (wide, high) = (width as f64, height as f64);
    GRIDS.into_iter().flat_map(move |(step, sides)| {
        let (rows, columns) = (height.div_ceil(step), width.div_ceil(step));
        let places = (0..rows).flat_map(move |row| (0..columns).map(move |column| (row, column)));
        places.flat_map(move |(row, column)| {
            let at = |place: usize, size: f64| ((place as f64 + 0.5) * step as f64 / size) as f32;
            let centre = [at(column, wide), at(row, high)];
            sides.map(|side| (centre, [(f64::from(side) / wide) as f32, (f64::from(side) / high) as f32]))
        })
    })
}

fn face(
    size: [f32; 2],
    centre: [f32; 2],
    sides: [f32; 2],
    moved: &[f32],
    points: &[f32],
    score: f32,
) -> Face {
    let number = |numbers: &[f32], at: usize| numbers.get(at).copied().unwrap_or_default();
    let place =
        |numbers: &[f32], at: usize, axis: usize| centre[axis] + number(numbers, at) * MOVES * sides[axis];
    let end = |axis: usize| {
        let middle = place(moved, axis, axis);
        let side = sides[axis] * (number(moved, axis + 2) * STRETCHES).exp();
        let first = middle - side / 2.0;
        [first * size[axis], (side + first) * size[axis]]
    };
    let ([left, right], [top, bottom]) = (end(0), end(1));
    let point = |at: usize| [0, 1].map(|axis| place(points, 2 * at + axis, axis) * size[axis]);
    Face { bounds: [left, top, right, bottom], points: [0, 1, 2, 3, 4].map(point), score }
}

/// The share of what two boxes cover together that both cover.
fn shared(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    let area = |[left, top, right, bottom]: [f32; 4]| (right - left) * (bottom - top);
    let [left, top] = [0, 1].map(|at| a[at].max(b[at]));
    let [right, bottom] = [2, 3].map(|at| a[at].min(b[at]));
    let both = (right - left).max(0.0) * (bottom - top).max(0.0);
    both / (area(*a) + area(*b) - both)
}

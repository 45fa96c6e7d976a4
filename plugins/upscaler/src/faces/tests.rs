//! Steps against OpenCV's numbers (`tests/fixtures/restore_reference.py`).

use serde::Deserialize;
use std::collections::BTreeMap;

use super::align::{Matrix, inverse, to_template};
use super::anchors::{count, faces};
use super::laid::{Laid, lay};
use super::lanczos::lanczos;
use super::warp::{places, value_at, warped};
use super::{Colours, Plane};

/// Rows of pixels, in OpenCV's order of colours.
type Picture = Vec<Vec<[u8; 3]>>;

#[derive(Deserialize)]
struct Steps {
    picture: Picture,
    alignments: Vec<Alignment>,
    matrix: Matrix,
    warped: Picture,
    warped_plane: Vec<Vec<f64>>,
    lanczos: BTreeMap<String, Picture>,
}

#[derive(Deserialize)]
struct Alignment {
    points: [[f32; 2]; 5],
    matrix: Matrix,
}

fn steps() -> Steps {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/plugins/faces.json");
    serde_json::from_slice(&std::fs::read(path).expect("read")).expect("JSON")
}

fn colours(rows: &Picture) -> Colours<'static> {
    let pixels: Vec<u8> = rows.iter().flatten().flatten().copied().collect();
    Colours { width: rows[0].len(), height: rows.len(), pixels: pixels.into() }
}

/// A channel turned as a whole.
fn warped_plane(plane: &Plane, matrix: &Matrix, (width, height): (usize, usize)) -> Plane {
    let way = inverse(matrix);
    let all = (0..height).flat_map(|row| places(&way, row, 0..width));
    Plane { width, height, values: all.map(|place| value_at(plane, place)).collect() }
}

#[test]
fn points_lie_as_opencv_lays_them() {
    for Alignment { points, matrix } in steps().alignments {
        let found = to_template(&points, 512).expect("a matrix");
        // Its last step is an iteration of its own, which ends near enough to the least.
        for (found, wanted) in found.iter().flatten().zip(matrix.iter().flatten()) {
            assert!((found - wanted).abs() < 1e-3 * (1.0 + wanted.abs()), "{found} {wanted}: {points:?}");
        }
    }
    assert_eq!(to_template(&[[7.0, 7.0]; 5], 512), None);
    assert_eq!(to_template(&[[f32::NAN; 2]; 5], 512), None);
}

#[test]
fn pictures_are_turned_as_by_opencv() {
    let Steps { picture, matrix, warped: wanted, warped_plane: wanted_plane, .. } = steps();
    let picture = colours(&picture);
    assert_eq!(warped(&picture, &matrix, (45, 33), [135, 133, 132]), colours(&wanted));
    let (width, height) = (picture.width, picture.height);
    let values = (0..width * height).map(|at| (at % 97) as f64 / 96.0).collect();
    let plane = warped_plane(&Plane { width, height, values }, &matrix, (45, 33));
    for (found, wanted) in plane.values.iter().zip(wanted_plane.iter().flatten()) {
        assert!((found - wanted).abs() < 1e-9, "{found} {wanted}");
    }
}

#[test]
fn pictures_are_enlarged_as_by_opencv() {
    let Steps { picture, lanczos: wanted, .. } = steps();
    let picture = colours(&picture);
    for (size, wanted) in wanted {
        let wanted = colours(&wanted);
        assert_eq!(lanczos(&picture, (wanted.width, wanted.height)), wanted, "{size}");
    }
    assert_eq!(lanczos(&picture, (picture.width, picture.height)), picture);
}

#[test]
fn faces_are_laid_over_rows_as_over_the_whole_picture() {
    let (width, height, side) = (61, 47, 16);
    let level = |at: usize, of: usize| ((at * of) % 251) as u8;
    let picture = Colours { width, height, pixels: (0..3 * width * height).map(|at| level(at, 7)).collect() };
    // Where they lie: within, over a border, over one another, nowhere, turned, so large that all is covered, so small that little is.
    let turned = |angle: f64, scale: f64, x: f64, y: f64| {
        let (sine, cosine) = angle.sin_cos();
        [[scale * cosine, -scale * sine, x], [scale * sine, scale * cosine, y]]
    };
    let matrices = [
        turned(0.3, 0.8, -10.0, -14.0),
        turned(-2.0, 1.0, 30.0, 50.0),
        turned(0.0, 0.5, 4.0, 3.0),
        turned(0.1, 1.0, -9e3, 2e3),
        turned(1.2, 0.2, 1.0, 2.0),
        turned(0.7, 5.0, -100.0, -200.0),
    ];
    let mut seen: Vec<f64> = picture.pixels.iter().copied().map(f64::from).collect();
    let mut faces = vec![];
    for (number, matrix) in matrices.iter().enumerate() {
        let pixels = (0..3 * side * side).map(|at| level(at, 11 + number)).collect();
        let face = Colours { width: side, height: side, pixels };
        let values = (0..side * side).map(|at| ((at * 13 + number) % 17) as f64 / 16.0).collect();
        let mask = Plane { width: side, height: side, values };
        let back = inverse(matrix);
        let (over, shares) =
            (warped(&face, &back, (width, height), [0; 3]), warped_plane(&mask, &back, (width, height)));
        for ((seen, over), share) in
            seen.chunks_exact_mut(3).zip(over.pixels.chunks_exact(3)).zip(&shares.values)
        {
            for (seen, over) in seen.iter_mut().zip(over) {
                *seen = share * f64::from(*over) + (1.0 - share) * *seen;
            }
        }
        faces.push(Laid::new(face, mask, matrix, (width, height)));
    }
    let wanted: Vec<u8> = seen.into_iter().map(|value| value as u8).collect();
    let mut made = vec![0; wanted.len()];
    let go_on = || Ok::<(), &str>(());
    lay(&picture, &faces, &mut made, go_on).expect("laid");
    assert_eq!(made, wanted);
    lay(&picture, &[], &mut made, go_on).expect("laid");
    assert_eq!(made, picture.pixels.as_ref());
    // Each row with a face asks whether to go on.
    assert_eq!(lay(&picture, &faces, &mut made, || Err("cancelled")), Err("cancelled"));
}

#[test]
fn so_many_faces_are_found_at_most() {
    // An anchor in eight is a face, each of its own place.
    let (width, height) = (320, 320);
    let anchors = count(width, height);
    let boxes = vec![0.0; 4 * anchors];
    let points = vec![0.0; 10 * anchors];
    let score = |at: usize| if at % 2 == 1 && (at / 2).is_multiple_of(8) { 1.0 } else { 0.0 };
    let scores: Vec<f32> = (0..2 * anchors).map(score).collect();
    let all = faces((width, height), [&boxes, &scores, &points], (0.97, 0.4), usize::MAX);
    let some = faces((width, height), [&boxes, &scores, &points], (0.97, 0.4), 50);
    assert!(all.len() > 100, "{}", all.len());
    assert_eq!(some, all[..50]);
}

//! Steps against OpenCV's numbers (`tests/fixtures/restore_reference.py`).

use serde::Deserialize;
use std::collections::BTreeMap;

use super::align::{Matrix, to_template};
use super::lanczos::lanczos;
use super::warp::{warped, warped_plane};
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

fn colours(rows: &Picture) -> Colours {
    let pixels: Vec<u8> = rows.iter().flatten().flatten().copied().collect();
    Colours { width: rows[0].len(), height: rows.len(), pixels }
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

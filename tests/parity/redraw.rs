//! The masks with which a picture is drawn anew in parts, against Pillow (`tests/fixtures/redraw.py`). Every byte must be the same.

use latentd_models::image::{Redraw, RedrawOrder, RedrawPart, SeamFix};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

fn check(parts: &[RedrawPart], size: (usize, usize), wanted: &Json, what: &str) {
    let wanted = wanted.as_array().expect("masks");
    assert_eq!(parts.len(), wanted.len(), "{what}");
    for (number, (part, wanted)) in parts.iter().zip(wanted).enumerate() {
        let digest = Sha256::digest(&part.mask(size).expect("a mask").pixels);
        let digest = digest.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        assert_eq!(wanted[0], digest, "{what} {number}");
        if let Some(drawn) = wanted[1].as_array() {
            let drawn: Vec<u64> = drawn.iter().map(|side| side.as_u64().expect("a side")).collect();
            assert_eq!(drawn, [part.drawn.0 as u64, part.drawn.1 as u64], "{what} {number}");
        }
    }
}

#[test]
fn masks_are_those_of_the_extension() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/redraw.json");
    let file: Json = serde_json::from_slice(&std::fs::read(file).expect("read")).expect("JSON");
    for case in file["cases"].as_array().expect("cases") {
        let pair = |key: &str| {
            let side = |index: usize| case[key][index].as_u64().expect("a side") as usize;
            (side(0), side(1))
        };
        let number = |key: &str| case[key].as_u64().expect("a number") as usize;
        let (size, tile) = (pair("size"), pair("tile"));
        let redraw = Redraw { size, tile };
        let masks = &case["masks"];
        for (order, name) in [(RedrawOrder::Linear, "linear"), (RedrawOrder::Chess, "chess")] {
            let tiles = redraw.tiles(order, number("padding")).expect("tiles");
            check(&tiles, size, &masks[name], &format!("{size:?} {name}"));
        }
        let bands = redraw.seams(SeamFix::Bands { width: number("width") }, 4).expect("bands");
        check(&bands, size, &masks["bands"], &format!("{size:?} bands"));
        let half = redraw.seams(SeamFix::HalfTile, 4).expect("tiles");
        check(&half, size, &masks["half-tile"], &format!("{size:?} half"));
        let all = redraw.seams(SeamFix::HalfTileIntersections, 4).expect("tiles");
        check(&all[half.len()..], size, &masks["intersections"], &format!("{size:?} intersections"));
    }
}

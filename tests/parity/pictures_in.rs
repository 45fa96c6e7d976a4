//! What is done to pictures that come in, against the programs that A1111 does it with: Pillow, OpenCV, scikit-image and
//! blendmodes in the versions that it pins (`tests/fixtures/pictures_in.py`). Every byte must be the same.

use std::collections::BTreeMap;
use std::io::Read;

use flate2::read::GzDecoder;
use latentd_models::image::colour::ColourCorrection;
use latentd_models::image::inpaint::{Inpaint, Mask, Overlay, Preparation, Region, fill_from_surroundings};
use latentd_models::image::{Filter, Fit, Orientation, Picture};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::golden::fixture;

fn cases() -> Vec<Value> {
    let file = std::fs::File::open(fixture("pictures_in.json.gz")).expect("goldens");
    let mut text = String::new();
    GzDecoder::new(file).read_to_string(&mut text).expect("gzip");
    serde_json::from_str(&text).expect("JSON")
}

pub fn number(value: &Value) -> usize {
    value.as_u64().expect("a number") as usize
}

pub fn pair(value: &Value) -> (usize, usize) {
    (number(&value[0]), number(&value[1]))
}

fn region(value: &Value) -> Option<Region> {
    let [left, top, right, bottom] = value.as_array()?.iter().map(number).collect::<Vec<_>>()[..] else {
        panic!("four numbers: {value}");
    };
    Some(Region { left, top, right, bottom })
}

pub fn unhex(text: &Value) -> Vec<u8> {
    let digits = text.as_str().expect("text").as_bytes().chunks_exact(2);
    digits.map(|pair| u8::from_str_radix(str::from_utf8(pair).expect("text"), 16).expect("hex")).collect()
}

fn noise(count: usize, seed: usize) -> Vec<u8> {
    let mask = (1u64 << 32) - 1;
    let mixed = (1..=count as u64).map(|at| {
        let value = (at * 2_654_435_761 + seed as u64 * 40_503) & mask;
        let value = ((value ^ (value >> 15)) * 2_246_822_519) & mask;
        ((value ^ (value >> 13)) >> 24) as u8
    });
    mixed.collect()
}

/// A picture that the script's `source` makes up.
pub(crate) fn made_up(kind: &str, (width, height): (usize, usize), channels: usize, seed: usize) -> Picture {
    source(
        &serde_json::json!({"kind": kind, "width": width, "height": height, "channels": channels, "seed": seed}),
    )
}

/// What the script's `picture` makes up.
pub fn source(told: &Value) -> Picture {
    let [width, height, channels, seed] =
        ["width", "height", "channels", "seed"].map(|key| number(&told[key]));
    let each = |value: &dyn Fn(usize, usize, usize) -> u8| -> Vec<u8> {
        let places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        places.flat_map(|(x, y)| (0..channels).map(move |channel| value(x, y, channel))).collect()
    };
    let white = |inside: &dyn Fn(usize, usize) -> bool| each(&|x, y, _| if inside(x, y) { 255 } else { 0 });
    let pixels = match told["kind"].as_str().expect("a kind") {
        "noise" => noise(width * height * channels, seed),
        "blocks" => {
            let across = width.div_ceil(8);
            let colours = noise(across * height.div_ceil(8) * channels, seed);
            each(&|x, y, channel| colours[((y / 8) * across + x / 8) * channels + channel])
        }
        "white" => white(&|_, _| true),
        "black" => white(&|_, _| false),
        "dot" => white(&|x, y| (x, y) == (width / 2, height / 2)),
        "edge" => white(&|x, _| x == 0),
        "rectangle" => white(&|x, y| {
            (width / 4..3 * width / 4).contains(&x) && (height / 3..2 * height / 3).contains(&y)
        }),
        "corner" => white(&|x, y| x + width / 5 + 1 >= width && y + height / 6 + 1 >= height),
        other => panic!("{other}"),
    };
    Picture::from_raw(pixels, width as u32, height as u32, channels as u32).expect("a picture")
}

fn mask(told: &Value) -> Mask {
    Mask::of(&source(told), true).expect("a mask")
}

/// What this program makes of a case's picture.
fn made(case: &Value) -> Picture {
    let picture = source(&case["picture"]);
    let (width, height) = pair(&case["size"]);
    let result = match case["what"].as_str().expect("text") {
        "resize" => {
            let filter = match case["filter"].as_str().expect("text") {
                "nearest" => Filter::Nearest,
                "box" => Filter::Box,
                "bilinear" => Filter::Bilinear,
                "bicubic" => Filter::Bicubic,
                "lanczos" => Filter::Lanczos,
                other => panic!("{other}"),
            };
            picture.resized(width, height, filter)
        }
        "fit" => {
            let fit = [Fit::Stretch, Fit::Crop, Fit::Fill][number(&case["mode"])];
            picture.fitted(fit, width, height)
        }
        "mask" => {
            let round = case["round"].as_bool().expect("a switch");
            Mask::of(&picture, round).map(|mask| mask.picture().clone())
        }
        "blur" => {
            let sigma = |index: usize| case["sigmas"][index].as_f64().expect("a number");
            mask(&case["picture"]).blurred(sigma(0), sigma(1)).map(|mask| mask.picture().clone())
        }
        "overlay" => Overlay::new(&picture, &mask(&case["mask"])).map(|overlay| overlay.picture().clone()),
        "over" => {
            let overlay = Overlay::new(&picture, &mask(&case["mask"])).expect("an overlay");
            overlay.over(&source(&case["drawn"]), region(&case["region"]))
        }
        "flatten" => {
            let colour = [0, 1, 2].map(|index| number(&case["colour"][index]) as u8);
            picture.over_colour(colour)
        }
        "fill" => {
            let sigma = case["blur"].as_f64().unwrap_or(0.0);
            let mask = mask(&case["mask"]).blurred(sigma, sigma).expect("a blur");
            fill_from_surroundings(&picture, &mask)
        }
        "correct" => ColourCorrection::of(&picture).expect("colours").apply(&source(&case["drawn"])),
        "turn" => {
            let read = Orientation::read(&unhex(&case["file"])).expect("a file");
            assert_eq!(read, Orientation::from_exif(number(&case["number"]) as u8), "{}", case["number"]);
            picture.oriented(read)
        }
        other => panic!("{other}"),
    };
    result.unwrap_or_else(|error| panic!("{case}: {error}"))
}

#[test]
fn pictures_are_what_a1111_makes_of_them() {
    let mut passed: BTreeMap<String, usize> = BTreeMap::new();
    let mut failed = vec![];
    for mut case in cases() {
        let what = case["what"].as_str().expect("text").to_owned();
        if ["region", "latents", "prepare"].contains(&what.as_str()) {
            continue;
        }
        let made = made(&case);
        assert_eq!((made.width, made.height), pair(&case["size"]), "{case}");
        let same = if case["pixels"].is_string() {
            let wanted = unhex(&case["pixels"]);
            let apart: Vec<u8> = made.pixels.iter().zip(&wanted).map(|(a, b)| a.abs_diff(*b)).collect();
            case["pixels"] = format!(
                "{} of {} differ, by up to {}",
                apart.iter().filter(|apart| **apart > 0).count(),
                apart.len(),
                apart.iter().max().expect("pixels"),
            )
            .into();
            made.pixels == wanted
        } else {
            Sha256::digest(&made.pixels)[..] == unhex(&case["sha256"])
        };
        if same {
            *passed.entry(what).or_default() += 1;
        } else {
            case["file"] = Value::Null;
            failed.push(case.to_string());
        }
    }
    println!("byte for byte: {passed:?}");
    assert!(failed.is_empty(), "{} differ:\n{}", failed.len(), failed.join("\n"));
    assert_eq!(passed.len(), 10, "a golden for each");
}

#[test]
fn regions_are_a1111s() {
    let cases = cases().into_iter().filter(|case| case["what"] == "region");
    let mut count = 0;
    for case in cases {
        let mask = mask(&case["picture"]);
        let found = mask.region(number(&case["padding"]));
        assert_eq!(found, region(&case["region"]), "{case}");
        let grown =
            case["drawn"].as_array().expect("sizes").iter().zip(case["grown"].as_array().expect("boxes"));
        for (drawn, wanted) in grown {
            let grown = found.expect("a region").expanded(pair(drawn), mask.size());
            assert_eq!(Some(grown), region(wanted), "{drawn} of {case}");
            count += 1;
        }
    }
    assert!(count > 500, "{count}");
}

#[test]
fn masks_on_latents_are_pillows_shares() {
    for case in cases().into_iter().filter(|case| case["what"] == "latents") {
        let (columns, rows) = pair(&case["size"]);
        let mask = mask(&case["picture"]);
        let wanted: Vec<f32> = unhex(&case["pixels"]).iter().map(|value| f32::from(*value) / 255.0).collect();
        let soft = mask.on_latents(rows, columns, false).expect("fits");
        assert_eq!((soft.dims(), soft.values()), (&[rows, columns][..], &wanted[..]), "{case}");
        let hard = mask.on_latents(rows, columns, true).expect("fits");
        assert!(hard.values().iter().zip(&wanted).all(|(hard, soft)| *hard == soft.round()), "{case}");
    }
}

/// The whole way of a picture: to what is drawn from, and from what was drawn to what is given back.
#[test]
fn pictures_are_prepared_and_finished_as_a1111_does() {
    let mut count = 0;
    for case in cases().iter().filter(|case| case["what"] == "prepare") {
        let switch = |name: &str| case[name].as_bool().expect("a switch");
        let sigma = |index: usize| case["sigmas"][index].as_f64().expect("a number");
        let preparation = Preparation {
            size: pair(&case["drawn_at"]),
            fit: Some([Fit::Stretch, Fit::Crop, Fit::Fill][number(&case["mode"])]),
            background: [0, 1, 2].map(|index| number(&case["colour"][index]) as u8),
            corrects_colour: switch("corrects"),
            inpaint: Inpaint {
                inverted: switch("inverted"),
                round: switch("rounded"),
                blur: (sigma(0), sigma(1)),
                fills: switch("fills"),
                only_masked: case["padding"].as_u64().map(|padding| padding as usize),
                keeps_original: false,
            },
        };
        let mask = (!case["mask"].is_null()).then(|| source(&case["mask"]));
        let prepared = preparation.prepare(&source(&case["picture"]), mask.as_ref()).expect("prepares");
        let drawn = source(&case["drawn"]).into_rgb();
        let result = Picture::from(prepared.finish(drawn, None).expect("finishes"));
        let drawn_mask = prepared.mask.as_ref().map(Mask::picture);
        for (what, picture) in
            [("init", Some(&prepared.picture)), ("drawn_mask", drawn_mask), ("result", Some(&result))]
        {
            let found = picture
                .map(|picture| ((picture.width, picture.height), Sha256::digest(&picture.pixels).to_vec()));
            let wanted =
                (!case[what].is_null()).then(|| (pair(&case[what]["size"]), unhex(&case[what]["sha256"])));
            assert_eq!(found, wanted, "{what} of {case}");
        }
        count += 1;
    }
    assert!(count > 80, "only {count}");
}

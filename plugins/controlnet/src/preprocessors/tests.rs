//! Against what OpenCV makes of the same pictures: `tests/fixtures/preprocessors.py` says how, and wrote what is compared.

use std::collections::HashMap;
use std::fmt::Write as _;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::hint::{ResizeMode, check_between, fitted, fitted_masked};
use super::random::Twister;
use super::resolution::pixel_perfect;
use super::*;

#[derive(Deserialize)]
struct Reference {
    pictures: Vec<(String, usize, usize, u32, String)>,
    luminance: String,
    draws: HashMap<u32, Vec<String>>,
    pixel_perfect: Vec<(usize, usize, usize, usize, String, u32)>,
    modules: Vec<ModuleRow>,
    hints: Vec<HintRow<String>>,
    masked: Vec<HintRow<Vec<f32>>>,
}

/// Module, picture (kind, width, height), resolution, both sliders, seed; what came of it (width, height, digest).
type ModuleRow = (String, String, usize, usize, u32, f64, f64, u32, usize, usize, String);

/// Map (kind, width, height), size of the hint, mode; what came of it.
type HintRow<T> = (String, usize, usize, usize, usize, String, T);

fn reference() -> Reference {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/preprocessors.json");
    serde_json::from_str(&std::fs::read_to_string(path).expect("read")).expect("parsed")
}

/// A byte by chance for each place.
fn noise(x: u32, y: u32, channel: u32, seed: u32) -> u32 {
    let mut value = x.wrapping_mul(73_856_093)
        ^ y.wrapping_mul(19_349_663)
        ^ channel.wrapping_mul(83_492_791)
        ^ seed.wrapping_mul(2_654_435_761);
    for (shift, factor) in [(16, 0x7feb_352d), (15, 0x846c_a68b)] {
        value = (value ^ (value >> shift)).wrapping_mul(factor);
    }
    (value ^ (value >> 16)) & 255
}

/// The same picture as `picture` of the recipe makes.
fn picture(kind: &str, width: usize, height: usize, seed: u32) -> Picture {
    let (wide, high) = (width as u32, height as u32);
    let radius = i64::from(2 * wide.min(high) / 3);
    let value = |x: u32, y: u32, channel: u32| {
        let from_centre = |place: u32, size: u32| (2 * i64::from(place) - i64::from(size) + 1).pow(2);
        let inside = from_centre(x, wide) + from_centre(y, high) < radius * radius;
        let white = |yes: bool| if yes { 255 } else { 0 };
        match kind {
            "noise" => noise(x, y, channel, seed),
            "smooth" => {
                let mut sums = 0;
                for (cell, weight) in [(32, 4), (8, 2), (2, 1)] {
                    let (right, down) = (x % cell, y % cell);
                    let at = |dx: u32, dy: u32| noise(x / cell + dx, y / cell + dy, channel, seed + cell);
                    let above = at(0, 0) * (cell - right) + at(1, 0) * right;
                    let below = at(0, 1) * (cell - right) + at(1, 1) * right;
                    sums += weight * ((above * (cell - down) + below * down) / (cell * cell));
                }
                (sums / 7 + 60 * ((x / 37 + y / 29) % 2)).min(255)
            }
            "gradient" => match channel {
                0 => x * 255 / (wide - 1).max(1),
                1 => y * 255 / (high - 1).max(1),
                _ => (x + 2 * y) % 256,
            },
            "shapes" if (x + y) % 31 < 3 => 128,
            "shapes" if inside => 250 - 10 * channel,
            "shapes" => 20 + 40 * channel,
            "lines" => white((x + y).is_multiple_of(17) || x.is_multiple_of(23) || y * 3 == x),
            "areas" => white(inside != ((y / 16) % 2 == 1)),
            "parts" => {
                let part = (x / 13 + 3 * (y / 11) + noise(x / 29, y / 17, 0, seed)) % 5;
                (part * 50 + channel * 13) % 256
            }
            "two" if inside == (channel == 0) => 250,
            "two" => 5,
            _ => 77,
        }
    };
    let places = (0..high).flat_map(|y| (0..wide).map(move |x| (x, y)));
    let data = places.flat_map(|(x, y)| [0, 1, 2].map(|channel| value(x, y, channel) as u8)).collect();
    Picture { width, height, data }
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)[..10].iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("written");
        text
    })
}

fn mode(name: &str) -> ResizeMode {
    ResizeMode::called(name).expect("a mode")
}

#[test]
fn pictures_are_those_of_the_recipe() {
    for (kind, width, height, seed, expected) in reference().pictures {
        assert_eq!(digest(&picture(&kind, width, height, seed).data), expected, "{kind}");
    }
}

/// What differs is told all together.
fn all_the_same(wrong: &[String], of: usize) {
    assert!(wrong.is_empty(), "{} of {of}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn modules_make_opencvs_bytes() {
    let rows = reference().modules;
    let mut wrong = vec![];
    for (name, kind, width, height, resolution, first, second, seed, wide, high, expected) in &rows {
        let settings = Settings { resolution: *resolution, first: *first, second: *second, seed: *seed };
        let made = run(name, &picture(kind, *width, *height, 7), &settings).expect("made");
        if (made.width, made.height, &digest(&made.data)) != (*wide, *high, expected) {
            wrong.push(format!("{name} of {kind} {width}x{height}, {settings:?}"));
        }
    }
    // What a CLIP sees is no picture: who asks for one is refused.
    let pictures = MODULES.iter().filter(|module| !module.is_of_ip_adapters());
    let missing = pictures.filter(|module| rows.iter().all(|row| row.0 != module.name));
    wrong.extend(missing.map(|module| format!("{} is not compared", module.name)));
    all_the_same(&wrong, rows.len());
}

#[test]
fn hints_have_opencvs_bytes() {
    let rows = reference().hints;
    let mut wrong = vec![];
    for (kind, wide, high, width, height, name, expected) in &rows {
        let made = fitted(&picture(kind, *wide, *high, 3), *width, *height, mode(name));
        if (made.width, made.height, &digest(&made.data)) != (*width, *height, expected) {
            wrong.push(format!("{kind} {wide}x{high} as {width}x{height}, {name}"));
        }
    }
    all_the_same(&wrong, rows.len());
}

/// Sums of 16 products of up to 255 in f32, in another order: 16 · 255 · 2⁻²³.
const FLOATS_APART: f32 = 5e-4;

#[test]
fn hints_with_masks_are_the_same_but_for_the_last_bits() {
    let rows = reference().masked;
    let mut wrong = vec![];
    for (kind, wide, high, width, height, name, expected) in &rows {
        let mask = picture("areas", *wide, *high, 0).data;
        let mask: Vec<u8> = mask.chunks_exact(3).map(|pixel| pixel[0]).collect();
        let made = fitted_masked(&picture(kind, *wide, *high, 3), &mask, *width, *height, mode(name));
        assert_eq!(made.data.len(), 4 * width * height);
        let apart =
            made.data.iter().step_by(997).zip(expected).map(|(made, expected)| (made - expected).abs());
        let most = apart.fold(0.0, f32::max);
        if most > FLOATS_APART {
            wrong.push(format!("{kind} {wide}x{high} as {width}x{height}, {name}: {most}"));
        }
    }
    all_the_same(&wrong, rows.len());
}

#[test]
fn luminance_is_opencvs_for_every_colour() {
    let table = cv::colour::Luminance::new();
    let all: Vec<u8> = (0..1_u32 << 24)
        .map(|colour| {
            let [_, red, green, blue] = colour.to_be_bytes();
            table.of([red, green, blue])
        })
        .collect();
    assert_eq!(digest(&all), reference().luminance);
}

#[test]
fn chance_is_numpys() {
    for (seed, expected) in reference().draws {
        let mut twister = Twister::new(seed);
        let drawn: Vec<f64> = (0..700).map(|_| twister.uniform()).collect();
        for (place, expected) in [0, 1, 2, 311, 312, 699].into_iter().zip(expected) {
            assert_eq!(drawn[place], of_hex(&expected), "{seed}, {place}");
        }
    }
}

/// Of "0x1.8p-3".
fn of_hex(text: &str) -> f64 {
    let (digits, power) = text.strip_prefix("0x1.").and_then(|text| text.split_once('p')).expect("a number");
    let digits = i64::from_str_radix(digits, 16).expect("digits") as f64 / (1_i64 << 52) as f64;
    (1.0 + digits) * f64::from(power.parse::<i32>().expect("a power")).exp2()
}

#[test]
fn pixel_perfect_is_what_the_hint_needs() {
    for (wide, high, width, height, name, expected) in reference().pixel_perfect {
        let found = pixel_perfect((wide, high), (width, height), mode(&name));
        assert_eq!(found, expected, "{wide}x{high} as {width}x{height}, {name}");
    }
}

#[test]
fn what_cannot_be_is_refused_with_what_can() {
    let canny = Module::called("canny").expect("known");
    let usual = canny.settings(-1.0, -1.0, -1.0, 0).expect("defaults");
    assert_eq!(usual, Settings { resolution: 512, first: 100.0, second: 200.0, seed: 0 });
    let told = |result: Result<Settings>| result.expect_err("refused").text;
    let text = told(canny.settings(63.0, -1.0, -1.0, 0));
    assert!(text.contains("63") && text.contains("64 to 2048"), "{text}");
    let text = told(canny.settings(-1.0, 256.0, -1.0, 0));
    assert!(
        text.contains("threshold_a") && text.contains("1 to 255") && text.contains("Low Threshold"),
        "{text}"
    );
    let text = told(canny.settings(-1.0, f64::NAN, -1.0, 0));
    assert!(text.contains("no number"), "{text}");
    for wrong in [f64::INFINITY, f64::NEG_INFINITY, -2.0, 0.0] {
        told(canny.settings(-1.0, -1.0, wrong, 0));
    }
    let text = Module::called("cany").expect_err("refused").text;
    assert!(text.contains("'cany'") && text.contains("scribble_xdog"), "{text}");
    assert_eq!(Module::called("inpaint_global_harmonious").expect("known").name, "inpaint");
    let sized = |width: usize, height: usize| canny.check(width, height, &usual).map_err(|error| error.text);
    for (width, height) in [(0, 1), (1, 0), (10_000, 10_000), (usize::MAX, 2), (40_000, 1)] {
        let text = sized(width, height).expect_err("refused");
        assert!(text.contains(&format!("{width}x{height}")), "{text}");
    }
    sized(8192, 8192).expect("the largest");
    sized(1, 40_000).expect_err("it becomes too large");
    let invert = Module::called("invert").expect("known");
    invert.check(300_000, 1, &usual).expect("it is not resized");
    for (own, mode, is_possible) in [
        ((300_000, 1), ResizeMode::Crop, false),
        ((1, 300_000), ResizeMode::Crop, false),
        ((1, 300_000), ResizeMode::Just, false),
        ((300_000, 1), ResizeMode::Fill, true),
        ((8192, 8192), ResizeMode::Crop, true),
        ((1024, 16), ResizeMode::Crop, true),
    ] {
        assert_eq!(check_between(own, (512, 512), mode).is_ok(), is_possible, "{own:?} {mode:?}");
    }
}

#[test]
fn names_are_told_once() {
    let mut names: Vec<&str> = MODULES.iter().flat_map(|module| [module.name, module.alias]).collect();
    names.sort_unstable();
    for pair in names.windows(2) {
        let both = MODULES.iter().any(|module| module.name == pair[0] && module.alias == pair[0]);
        assert!(pair[0] != pair[1] || both, "{}", pair[0]);
    }
}

/// What stands in quotes between two texts of the manifest.
fn listed(before: &str) -> Vec<&'static str> {
    let manifest = include_str!("../../controlnet.toml");
    let (_, list) = manifest.split_once(before).expect("a list");
    let (list, _) = list.split_once(']').expect("an end");
    list.split('"').skip(1).step_by(2).collect()
}

#[test]
fn the_manifest_names_each() {
    let names: Vec<&str> = MODULES.iter().map(|module| module.name).collect();
    assert_eq!(listed("[engines.preprocessor]\nentries = ["), names[1..]);
    let mut all = names;
    all.extend(MODULES.iter().filter(|module| module.alias != module.name).map(|module| module.alias));
    let mut shown = listed("\"enum\": [\n        \"none\"");
    shown.insert(0, "none");
    all.sort_unstable();
    shown.sort_unstable();
    assert_eq!(shown, all);
}

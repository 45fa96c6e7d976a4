//! Pictures continued beyond their sides, against A1111's rules by the programs that it pins (`tests/fixtures/outpaint.py`).
//! Every byte must be the same but those of noise: these depend on how a Fourier transform rounds, in f64, so values that lie
//! within rounding of each other may change places, and one that lies on a whole number of 8 bits may fall below it.

use std::io::Read;

use flate2::read::GzDecoder;
use latentd_models::image::inpaint::Region;
use latentd_models::image::outpaint::{Direction, Job, Margins, Mk2, Mk2Step, PoorMans};
use latentd_models::image::{Filter, Picture};
use latentd_models::model::Model;
use latentd_models::nn::Precision;
use latentd_models::pipeline::{InitImage, NoStages, NoWatch, SoftInpainting, img2img};
use latentd_models::sampling::{Sampler, Schedule};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::from_latents::request;
use crate::golden::{checkpoint, fixture};
use crate::pictures_in::{number, pair, source, unhex};

fn cases(way: &str) -> Vec<Value> {
    let file = std::fs::File::open(fixture("outpaint.json.gz")).expect("goldens");
    let mut text = String::new();
    GzDecoder::new(file).read_to_string(&mut text).expect("gzip");
    let all: Value = serde_json::from_str(&text).expect("JSON");
    all[way].as_array().expect("cases").clone()
}

fn made_up(told: &Value) -> Picture {
    let picture = source(told);
    if told["smooth"].is_null() {
        return picture;
    }
    let (width, height) = pair(&told["smooth"]);
    picture.resized(width, height, Filter::Bicubic).expect("fits")
}

fn margins(told: &Value) -> Margins {
    let [left, right, up, down] = ["left", "right", "up", "down"].map(|side| number(&told["margins"][side]));
    Margins { left, right, up, down }
}

fn assert_is(picture: &Picture, hash: &Value, what: &str, case: &Value) {
    assert_eq!(Sha256::digest(&picture.pixels)[..], unhex(hash), "{what} of {case}");
}

#[test]
fn poor_mans_outpainting_is_a1111s() {
    let mut jobs = 0;
    for case in cases("poor_mans") {
        let picture = made_up(&case["picture"]);
        let tile = pair(&case["tile"]);
        let outpaint =
            PoorMans::new(&picture, margins(&case), number(&case["mask_blur"]), tile).expect("can be drawn");
        assert_is(outpaint.canvas(), &case["canvas"], "the canvas", &case);
        assert_is(outpaint.mask().picture(), &case["mask"], "the mask", &case);
        assert_is(outpaint.latent_mask().picture(), &case["latent_mask"], "the latent mask", &case);
        let wanted = case["jobs"].as_array().expect("jobs");
        let regions: Vec<Region> = outpaint.regions().collect();
        assert_eq!(regions.len(), wanted.len(), "{case}");
        let mut drawn = vec![];
        for (region, wanted) in regions.into_iter().zip(wanted) {
            let place = [region.left, region.top, region.right, region.bottom];
            assert_eq!(wanted["region"], Value::from(place.to_vec()), "{case}");
            let Job { picture, mask, mask_blur, latent_mask } = outpaint.job(region).expect("a job");
            assert_is(&picture, &wanted["picture"], "a job's picture", &case);
            assert_is(mask.picture(), &wanted["mask"], "a job's mask", &case);
            assert_is(latent_mask.picture(), &wanted["latent_mask"], "a job's latent mask", &case);
            assert_eq!(mask_blur, 2 * number(&case["mask_blur"]));
            drawn.push(made_up(&wanted["drawn"]));
            jobs += 1;
        }
        let combined = outpaint.combined(&drawn).expect("as many");
        assert_eq!((combined.width, combined.height), pair(&case["size"]), "{case}");
        assert_is(&combined, &case["combined"], "the whole", &case);
    }
    println!("poor man's outpainting: {jobs} jobs, byte for byte");
    assert!(jobs > 40, "{jobs}");
}

#[test]
fn mk2s_steps_are_a1111s() {
    let (mut values, mut apart) = (0, 0);
    for case in cases("mk2") {
        let mut picture = made_up(&case["picture"]);
        let float = |name: &str| case[name].as_f64().expect("a number");
        let mk2 = Mk2 {
            margins: margins(&case),
            mask_blur: number(&case["mask_blur"]),
            noise_q: float("noise_q"),
            color_variation: float("color_variation"),
            size: pair(&case["size"]),
        };
        let steps = mk2.steps((picture.width, picture.height)).expect("can be drawn");
        let wanted = case["steps"].as_array().expect("steps");
        assert_eq!(steps.len(), wanted.len(), "{case}");
        for (step, wanted) in steps.into_iter().zip(wanted) {
            let direction = match wanted["side"].as_str().expect("a side") {
                "left" => Direction::Left,
                "right" => Direction::Right,
                "up" => Direction::Up,
                "down" => Direction::Down,
                other => panic!("{other}"),
            };
            assert_eq!(step, Mk2Step { direction, pixels: number(&wanted["pixels"]) });
            let drawing = mk2.begin(step, &picture).expect("can be drawn");
            let (canvas, mask) = (drawing.canvas(), drawing.mask());
            assert_eq!((canvas.width, canvas.height), pair(&wanted["canvas"]));
            assert_is(mask.picture(), &wanted["mask"], "the mask", &case);
            let job = drawing.job();
            assert_is(job.mask.picture(), &wanted["job_mask"], "the job's mask", &case);
            assert_is(job.latent_mask.picture(), &wanted["latent_mask"], "the latent mask", &case);
            assert_eq!(job.mask_blur, 4 * mk2.mask_blur);
            let [left, top, right, bottom] = [0, 1, 2, 3].map(|index| number(&wanted["region"][index]));
            assert_eq!(job.picture, canvas.cropped(Region { left, top, right, bottom }).expect("inside"));
            let noise = unhex(&wanted["noise"]);
            let pixels = canvas.pixels.chunks_exact(3).zip(mask.values());
            let found: Vec<u8> =
                pixels.filter(|(_, drawn)| **drawn > 0).flat_map(|(pixel, _)| pixel.to_vec()).collect();
            assert_eq!(found.len(), noise.len());
            for (found, wanted) in found.iter().zip(&noise) {
                assert!(found.abs_diff(*wanted) <= 1, "{found} for {wanted}: {direction:?} of {case}");
                apart += usize::from(found != wanted);
            }
            values += noise.len();
            picture = drawing.finish(&made_up(&wanted["drawn"])).expect("fits");
            assert_eq!((picture.width, picture.height), pair(&wanted["size"]));
        }
    }
    println!("mk2's noise: {apart} of {values} values of 8 bits differ, by 1");
    // One in a thousand: what is drawn over it sees more from its own noise.
    assert!(values > 100_000 && apart * 1000 <= values, "{apart} of {values}");
}

/// What image to image makes of a job.
fn drawn(model: &Model, job: &Job, fills: bool, seed: u64, soft: bool) -> Picture {
    let prepared = job.prepare(fills, soft).expect("can be drawn");
    let (width, height) = (prepared.picture.width, prepared.picture.height);
    let init = prepared.tensor().expect("a tensor");
    let sampler = Sampler::from_name("Euler a").expect("a sampler");
    let mut request = request(init.clone(), sampler, Schedule::Automatic, 3);
    (request.drawing.width, request.drawing.height, request.drawing.seed) = (width, height, seed);
    request.init = vec![InitImage::Picture(init)];
    let (rows, columns) = (height / 8, width / 8);
    let mask = prepared.mask.as_ref().expect("a mask").on_latents(rows, columns, !soft).expect("fits");
    request.latent_mask = Some(mask.reshaped([1, rows, columns]).expect("one"));
    request.soft_inpainting = soft.then(SoftInpainting::default);
    let mut outputs =
        img2img(&model.facts(), &mut &*model, &request, &mut NoWatch, &mut NoStages).expect("draws");
    let output = outputs.remove(0);
    assert_eq!(output.seen.is_some(), soft);
    Picture::from(prepared.finish(output.image, output.seen.as_ref()).expect("finishes"))
}

/// From a picture to the continued one with a model, both ways: what is far from what was drawn is the original to the byte, and
/// what was not there is no longer black.
#[test]
fn pictures_are_continued_with_a_model() {
    let model = Model::open(&checkpoint("tiny-sd1"), Precision::F32).expect("opens");
    let told = serde_json::json!({"kind": "noise", "width": 64, "height": 64, "channels": 3, "seed": 1});
    let (picture, margins) =
        (made_up(&told), Margins { left: 32, right: 32, down: 64, ..Margins::default() });
    let inner = Region { left: 28, top: 0, right: 36, bottom: 8 };
    let kept = |whole: &Picture| {
        let Region { left, right, .. } = inner;
        whole.cropped(Region { left: left + 32, right: right + 32, ..inner }).expect("inside")
    };
    let outer = Region { left: 0, top: 100, right: 128, bottom: 128 };
    for soft in [false, true] {
        let poor = PoorMans::new(&picture, margins, 1, (128, 96)).expect("can be drawn");
        let tiles: Vec<Picture> = poor
            .regions()
            .zip(42..)
            .map(|(region, seed)| drawn(&model, &poor.job(region).expect("a job"), true, seed, soft))
            .collect();
        assert_eq!(tiles.len(), 2);
        let whole = poor.combined(&tiles).expect("as many");

        let mk2 = Mk2 { margins, mask_blur: 2, noise_q: 1.0, color_variation: 0.05, size: (96, 96) };
        let mut continued = picture.clone();
        for step in mk2.steps((64, 64)).expect("steps") {
            let drawing = mk2.begin(step, &continued).expect("can be drawn");
            continued = drawing.finish(&drawn(&model, drawing.job(), false, 42, soft)).expect("fits");
        }
        for whole in [whole, continued] {
            assert_eq!((whole.width, whole.height), (128, 128));
            let new = whole.cropped(outer).expect("inside").pixels;
            assert!(new.iter().filter(|value| **value > 0).count() * 2 > new.len(), "soft: {soft}");
            if !soft {
                assert_eq!(kept(&whole), picture.cropped(inner).expect("inside"));
            }
        }
    }
}

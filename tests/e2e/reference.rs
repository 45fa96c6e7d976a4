//! Pictures that references made, for what plugins draw: PNGs whose rows a JSON tells of (`tests/fixtures/plugins`).

use std::fs;

use latentd_client::protocol::{
    ImageIn, Img2ImgParams, OutputFormat, OutputParams, PluginParams, Precision, Txt2ImgParams,
};
use latentd_models::image::Picture;
use serde_json::{Value as Json, json};

use crate::harness::{Daemon, fixtures, small, within};

/// A mean square error of 0.065: one value of 15 may be off by one. Values are cut off or rounded to 8 bits, so the last bits of f32
/// turn some of them. Another formula shows: scripts see to it that the picture without the plugin is below 40.
pub(crate) const LEAST_DECIBELS: f64 = 60.0;

/// Pixels of all pictures of a request that asks for them raw.
pub(crate) async fn pixels(daemon: &Daemon, params: &Txt2ImgParams) -> Vec<Vec<u8>> {
    let drawn = within(daemon.client().await.txt2img(params)).await.expect("drawn");
    assert_eq!(drawn.notices, Vec::<String>::new());
    drawn.images.into_iter().map(|image| image.raw.expect("pixels").0).collect()
}

/// The same of one that begins with a picture of the size that is drawn.
async fn pixels_from(daemon: &Daemon, drawing: Txt2ImgParams, init: &[u8]) -> Vec<Vec<u8>> {
    let (width, height) = (drawing.width.expect("a width"), drawing.height.expect("a height"));
    let init_images = vec![ImageIn::raw(init.to_vec(), width, height, 3)];
    let params = Img2ImgParams { drawing, init_images, ..Img2ImgParams::default() };
    let drawn = within(daemon.client().await.img2img(&params)).await.expect("drawn");
    assert_eq!(drawn.notices, Vec::<String>::new());
    drawn.images.into_iter().map(|image| image.raw.expect("pixels").0).collect()
}

/// The request with a plugin.
pub(crate) fn with(plugin: &str, params: &Json, request: Txt2ImgParams) -> Txt2ImgParams {
    let params = PluginParams::from_json(params.as_object().expect("an object").clone());
    Txt2ImgParams { plugins: [(plugin.to_owned(), params)].into(), ..request }
}

/// A row's request, without its plugin.
pub(crate) fn request(row: &Json) -> Txt2ImgParams {
    let text = |key: &str| row[key].as_str().unwrap_or_else(|| panic!("{key}")).to_owned();
    let number = |key: &str| row[key].as_u64().and_then(|number| u32::try_from(number).ok());
    Txt2ImgParams {
        prompt: text("prompt").into(),
        negative_prompt: text("negative_prompt").into(),
        checkpoint: Some(text("model")),
        sampler_name: text("sampler"),
        steps: number("steps").expect("steps"),
        cfg_scale: row["cfg_scale"].as_f64().expect("a scale"),
        width: number("width"),
        height: number("height"),
        batch_size: number("batch_size").expect("a size"),
        precision: Precision::F32,
        output: OutputParams { format: OutputFormat::Raw, dir: None },
        denoising_strength: row["denoising_strength"].as_f64(),
        enable_hr: row["hr_scale"].is_number(),
        hr_scale: row["hr_scale"].as_f64().unwrap_or(2.0),
        hr_second_pass_steps: number("hr_steps").unwrap_or_default(),
        ..small(row["seed"].as_i64().expect("a seed"))
    }
}

/// Parameters whose masks are files beside those that tell of them.
fn located(params: &Json) -> Json {
    match params {
        Json::Object(map) => {
            let located = |(name, value): (&String, &Json)| {
                let mask = value.as_str().filter(|_| name == "mask");
                let path = |mask| fixtures().join("../plugins").join(mask).with_extension("png");
                let value = mask.map_or_else(|| located(value), |mask| json!({"path": path(mask)}));
                (name.clone(), value)
            };
            Json::Object(map.iter().map(located).collect())
        }
        Json::Array(list) => list.iter().map(located).collect(),
        other => other.clone(),
    }
}

/// How near pixels come to others.
pub(crate) fn decibels(found: &[u8], wanted: &[u8]) -> f64 {
    assert_eq!(found.len(), wanted.len());
    let squares: f64 = found.iter().zip(wanted).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    10.0 * (255.0f64.powi(2) / (squares / found.len() as f64).max(1e-9)).log10()
}

/// Rows of a reference's file, and all of its pixels, one picture after the other.
pub(crate) fn rows(file: &str) -> (Vec<Json>, Vec<u8>) {
    let folder = fixtures().join("../plugins");
    let read = |name: String| fs::read(folder.join(name)).expect("read");
    let index: Json = serde_json::from_slice(&read(format!("{file}.json"))).expect("JSON");
    let pixels = Picture::decode(&read(format!("{file}.png")), 1 << 22).expect("decodes").pixels;
    (index["rows"].as_array().expect("rows").clone(), pixels)
}

/// Draws what the rows of a reference's file say, with the plugin that each names, or else the one of the file's name.
#[allow(clippy::print_stderr, reason = "how near they are, with --nocapture")]
pub(crate) async fn reaches(daemon: &Daemon, file: &str) {
    let (rows, all) = rows(file);
    let (mut rest, mut worst) = (&all[..], (f64::INFINITY, String::new()));
    let mut before: Vec<&[u8]> = vec![];
    for row in rows {
        let of_file = file.replace('_', "-");
        let plugin = row["plugin"].as_str().unwrap_or(&of_file);
        let asked = with(plugin, &located(&row["params"]), request(&row));
        let drawn = match row["init"].as_u64() {
            Some(init) => pixels_from(daemon, asked, before[init as usize]).await,
            None => pixels(daemon, &asked).await,
        };
        for found in drawn {
            let wanted;
            (wanted, rest) = rest.split_at(found.len());
            before.push(wanted);
            let reached = decibels(&found, wanted);
            eprintln!("{reached:5.1} dB: {row}");
            if reached < worst.0 {
                worst = (reached, row.to_string());
            }
        }
    }
    assert!(rest.is_empty(), "pictures that no row tells of");
    eprintln!("the worst: {:.1} dB: {}", worst.0, worst.1);
    assert!(worst.0 >= LEAST_DECIBELS, "{:.1} dB: {}", worst.0, worst.1);
}

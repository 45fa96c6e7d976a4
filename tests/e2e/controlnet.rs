//! The plugin that comes with latentd for ControlNets, T2I-Adapters and IP-Adapters: its pictures are those of diffusers, k-diffusion and
//! sd-webui-controlnet's rules (`tests/fixtures/controlnet_reference.py` made them), the same wherever it runs, and what is wrong with
//! a unit is said as the request comes.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use latentd_client::protocol::{
    ErrorName, ImageIn, Img2ImgParams, OutputFormat, OutputParams, PluginParams, Precision, Txt2ImgParams,
    Txt2ImgResult,
};
use latentd_client::{Client, Error};
use rmpv::Value;
use serde_json::{Value as Json, json};

use crate::harness::{Daemon, Options, fixtures, refused, small, within};
use crate::made_up;
use crate::plugin_library::{build_rust, install};
use crate::reference::{LEAST_DECIBELS, decibels, rows};
use crate::vae::{models, taesd, write};

/// Where only what is masked is drawn: the picture's size, and where the square of 64 is that is.
const WHOLE: (usize, usize) = (112, 96);
const AT: (usize, usize) = (24, 16);

fn library() -> &'static [u8] {
    static BUILT: OnceLock<Vec<u8>> = OnceLock::new();
    BUILT.get_or_init(|| {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
        build_rust(&workspace.join("plugins/controlnet"))
    })
}

/// A file: its name, its script and case, and the tensors a side of which is another.
type Wrong = (&'static str, &'static str, &'static str, &'static [&'static str], usize, usize);

/// A library with networks where A1111 has them, and elsewhere.
fn library_of_models() -> tempfile::TempDir {
    let folder = models();
    for (case, to) in [
        ("control-ldm", "ControlNet/control-ldm"),
        ("control-diffusers", "ControlNet/control-diffusers"),
        ("control-ldm", "ControlNet/shuffle-ldm"),
        ("difference", "ControlNet/difference"),
        ("lora", "ControlNet/lora"),
        ("full-diffusers", "ControlNet/full-diffusers"),
        ("grey-authors", "ControlNet/grey-authors"),
        // Told by what is in it.
        ("light-authors", "Lora/light-authors"),
    ] {
        let path = folder.path().join(format!("{to}.safetensors"));
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, made_up::file("controlnets", case, |name, shape| Some((name.to_owned(), shape))))
            .expect("written");
    }
    for (case, to) in [
        ("plain", "ControlNet/plain"),
        ("plus", "ControlNet/plus"),
        ("vision", "clip_vision/seer"),
        ("wide-vision", "clip_vision/another"),
    ] {
        let path = folder.path().join(format!("{to}.safetensors"));
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        // Another one makes more of a picture, and sees for neither.
        let changed = |name: &str, mut shape: Vec<usize>| {
            if name == "visual_projection.weight" && case == "wide-vision" {
                shape[0] = 40;
            }
            Some((name.to_owned(), shape))
        };
        fs::write(path, made_up::file("ip_adapters", case, changed)).expect("written");
    }
    // As of another family: told more, looked at by other heads, seen by another CLIP; and over another UNet.
    let wrong: [Wrong; 5] = [
        ("other-family", "controlnets", "control-ldm", &["attn2.to_k.weight", "attn2.to_v.weight"], 1, 48),
        ("difference-wide", "controlnets", "difference", &["attn2.to_k.weight", "attn2.to_v.weight"], 1, 48),
        ("lora-deep", "controlnets", "lora", &["input_blocks.1.0.in_layers.2.down"], 2, 1),
        (
            "plus-wide",
            "ip_adapters",
            "plus",
            &["ip_adapter.1.to_k_ip.weight", "ip_adapter.1.to_v_ip.weight"],
            0,
            48,
        ),
        ("unseen", "ip_adapters", "plain", &["image_proj.proj.weight"], 1, 20),
    ];
    for (name, script, case, ends, side, size) in wrong {
        let changed = |name: &str, mut shape: Vec<usize>| {
            if ends.iter().any(|end| name.ends_with(end)) {
                shape[side] = size;
            }
            Some((name.to_owned(), shape))
        };
        let path = folder.path().join(format!("ControlNet/{name}.safetensors"));
        fs::write(path, made_up::file(script, case, changed)).expect("written");
    }
    write(&folder.path().join("ControlNet/decoder.safetensors"), &taesd());
    folder
}

fn start(models: &Path, config: &str, environment: &[(&str, &str)]) -> Daemon {
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let daemon = Daemon::with(Options {
        models: Some(models.to_owned()),
        config: config.into(),
        environment: environment.collect(),
        ..Options::default()
    });
    install(&daemon, "controlnet.so", library());
    daemon
}

/// The reference's picture of these sides.
fn picture(width: usize, height: usize, seed: usize) -> Vec<u8> {
    let places = (0..height).flat_map(|y| (0..width).flat_map(move |x| (0..3).map(move |c| (x, y, c))));
    let value = |(x, y, c): (usize, usize, usize)| x * (3 + seed) + y * (5 + 2 * seed) + c * 40 + x * y / 4;
    places.map(|place| (value(place) % 256) as u8).collect()
}

fn raw(pixels: &[u8], width: usize, height: usize, channels: usize) -> Json {
    json!({ "raw": pixels, "width": width, "height": height, "channels": channels })
}

fn sides(told: &Json) -> (usize, usize) {
    let side = |index: usize| told[index].as_u64().expect("a side") as usize;
    (side(0), side(1))
}

/// A mask that rises from the left.
fn ramp(told: &Json) -> Json {
    let (width, height) = sides(told);
    let row: Vec<u8> = (0..width).map(|x| (x * 255 / (width - 1)) as u8).collect();
    raw(&row.repeat(height), width, height, 1)
}

/// A row's units, with their pictures.
fn units(row: &Json) -> PluginParams {
    let unit = |unit: &Json| {
        let mut unit = unit.clone();
        if unit["image"].is_array() {
            let (width, height) = sides(&unit["image"]);
            let seed = unit["image"][2].as_u64().expect("a seed") as usize;
            unit["image"] = raw(&picture(width, height, seed), width, height, 3);
        }
        for mask in ["mask", "effective_region_mask"] {
            if unit[mask].is_array() {
                unit[mask] = ramp(&unit[mask]);
            }
        }
        unit.as_object_mut().expect("a unit").retain(|_, value| !value.is_null());
        unit
    };
    let units: Vec<Json> = row["units"].as_array().expect("units").iter().map(unit).collect();
    params(&json!({ "units": units }))
}

/// Parameters whose pixels are bytes, which JSON has not.
fn params(told: &Json) -> PluginParams {
    let PluginParams(map) = PluginParams::from_json(told.as_object().expect("an object").clone());
    PluginParams(map.into_iter().map(|(name, value)| (name, binary(value))).collect())
}

fn binary(value: Value) -> Value {
    let byte = |value: &Value| value.as_u64().and_then(|value| u8::try_from(value).ok()).expect("a byte");
    let entry = |(key, value): (Value, Value)| match value {
        Value::Array(pixels) if key.as_str() == Some("raw") => {
            (key, Value::Binary(pixels.iter().map(byte).collect()))
        }
        value => (key, binary(value)),
    };
    match value {
        Value::Map(map) => Value::Map(map.into_iter().map(entry).collect()),
        Value::Array(list) => Value::Array(list.into_iter().map(binary).collect()),
        other => other,
    }
}

fn request(row: &Json) -> Txt2ImgParams {
    let plugins = [("controlnet".to_owned(), units(row))].into();
    Txt2ImgParams { plugins, ..crate::reference::request(row) }
}

/// Draws a row; the pixels of what is drawn.
async fn drawn(client: &Client, row: &Json) -> Result<(Vec<u8>, Txt2ImgResult), Error> {
    let drawing = request(row);
    let (kind, side) =
        (row["kind"].as_str().expect("a kind"), |key: &str| row[key].as_u64().expect("a side") as usize);
    if !matches!(kind, "img2img" | "only masked") {
        let result = within(client.txt2img(&drawing)).await?;
        return Ok((result.images[0].raw.clone().expect("pixels").0, result));
    }
    let is_part = kind == "only masked";
    let (width, height) = if is_part { WHOLE } else { (side("width"), side("height")) };
    let init = ImageIn::raw(picture(width, height, 9), width as u32, height as u32, 3);
    let mut params = Img2ImgParams { drawing, init_images: vec![init], ..Img2ImgParams::default() };
    if is_part {
        let is_in = |at: usize, from: usize| (from..from + 64).contains(&at);
        let white = |at: usize| if is_in(at % width, AT.0) && is_in(at / width, AT.1) { 255 } else { 0 };
        let mask: Vec<u8> = (0..width * height).map(white).collect();
        params.mask = Some(ImageIn::raw(mask, width as u32, height as u32, 1).into());
        (params.mask_blur, params.inpainting_fill) = (Some(0.0), 1);
        (params.inpaint_full_res, params.inpaint_full_res_padding) = (true, 0);
    }
    let result = within(client.img2img(&params)).await?;
    let pixels = result.images[0].raw.clone().expect("pixels").0;
    let row = |y: usize| {
        let from = ((y + AT.1) * width + AT.0) * 3;
        pixels[from..from + 64 * 3].to_vec()
    };
    Ok((if is_part { (0..64).flat_map(row).collect() } else { pixels }, result))
}

#[tokio::test]
#[allow(clippy::print_stderr, reason = "how near they are, with --nocapture")]
async fn pictures_are_those_of_the_references_in_all_modes_windows_and_passes() {
    let folder = library_of_models();
    let daemon = start(folder.path(), "", &[]);
    let client = daemon.client().await;
    let (rows, all) = rows("controlnet");
    let (mut rest, mut worst) = (&all[..], (f64::INFINITY, String::new()));
    for row in rows {
        let (width, height) = sides(&row["size"]);
        let wanted;
        (wanted, rest) = rest.split_at(width * height * 3);
        let (found, result) = drawn(&client, &row).await.expect("drawn");
        assert_eq!(result.notices, Vec::<String>::new());
        let reached = decibels(&found, wanted);
        eprintln!("{reached:5.1} dB: {row}");
        if reached < worst.0 {
            worst = (reached, row.to_string());
        }
    }
    assert!(rest.is_empty(), "pictures that no row tells of");
    eprintln!("the worst: {:.1} dB: {}", worst.0, worst.1);
    assert!(worst.0 >= LEAST_DECIBELS, "{:.1} dB: {}", worst.0, worst.1);
}

/// A row of each kind, with as many units as there are, one over the checkpoint, and one with an IP-Adapter.
fn some(rows: &[Json]) -> Vec<Json> {
    let units = |row: &Json| row["units"].as_array().map_or(0, Vec::len);
    let of = |kind: &str| {
        let of_kind = rows.iter().filter(|row| row["kind"] == kind);
        of_kind.max_by_key(|row| units(row)).cloned()
    };
    let with = |model: &str| rows.iter().find(|row| row["units"][0]["model"] == model).cloned();
    let kinds = ["txt2img", "img2img", "only masked", "hires"].into_iter().filter_map(of);
    kinds.chain(["lora", "plus"].into_iter().filter_map(with)).collect()
}

#[tokio::test]
async fn inline_in_a_process_and_on_the_fake_device_it_draws_the_same_bytes() {
    let folder = library_of_models();
    let rows = some(&rows("controlnet").0);
    assert_eq!(rows.len(), 6);
    let mut all: Vec<Vec<Vec<u8>>> = vec![];
    let inline = "[plugins.controlnet]\nisolation = \"inline\"\n";
    for (config, device) in [("", None), (inline, None), ("", Some(("LATENTD_DEVICE", "fake")))] {
        let daemon = start(folder.path(), config, &device.into_iter().collect::<Vec<_>>());
        let client = daemon.client().await;
        let mut drawn_here = vec![];
        for row in &rows {
            drawn_here.push(drawn(&client, row).await.expect("drawn").0);
        }
        all.push(drawn_here);
    }
    assert!(all[0] == all[1], "inline");
    assert!(all[0] == all[2], "on the fake device");
}

/// A refiner that is the same model draws the same; what is over a UNet is made anew over the refiner's.
#[tokio::test]
async fn what_is_over_a_checkpoint_is_over_the_refiner_when_its_turn_comes() {
    let folder = library_of_models();
    let checkpoints = folder.path().join("Stable-diffusion");
    fs::copy(checkpoints.join("tiny-sd1.safetensors"), checkpoints.join("second.safetensors"))
        .expect("copied");
    let daemon = start(folder.path(), "", &[]);
    let client = daemon.client().await;
    for model in ["difference", "lora"] {
        let unit = json!({ "model": model, "image": raw(&picture(64, 64, 1), 64, 64, 3) });
        let alone = Txt2ImgParams { checkpoint: Some("tiny-sd1".into()), steps: 6, ..with(&unit) };
        let refined = Txt2ImgParams {
            refiner_checkpoint: Some("second".into()),
            refiner_switch_at: Some(0.5),
            ..alone.clone()
        };
        let plain = Txt2ImgParams { plugins: [].into(), ..alone.clone() };
        let mut drawn = vec![];
        for request in [&alone, &refined, &plain] {
            let result = within(client.txt2img(request)).await.expect("drawn");
            assert_eq!(result.notices, Vec::<String>::new());
            drawn.push(result.images[0].raw.clone().expect("pixels").0);
        }
        assert!(drawn[0] == drawn[1] && drawn[0] != drawn[2], "{model}");
    }
}

/// A checkpoint's file with the numbers of each tensor of a layer in the opposite order.
fn turned(mut file: Vec<u8>, layer: &str) -> Vec<u8> {
    let length = u64::from_le_bytes(file[..8].try_into().expect("eight bytes")) as usize;
    let header: Json = serde_json::from_slice(&file[8..8 + length]).expect("a header");
    let tensors = header.as_object().expect("tensors").iter().filter(|(name, _)| name.starts_with(layer));
    let mut count = 0;
    for (_, tensor) in tensors {
        assert_eq!(tensor["dtype"], "F16");
        let [from, to] =
            [0, 1].map(|end| 8 + length + tensor["data_offsets"][end].as_u64().expect("bytes") as usize);
        file[from..to].reverse();
        file[from..to].chunks_exact_mut(2).for_each(<[u8]>::reverse);
        count += 1;
    }
    assert!(count > 0, "no {layer}");
    file
}

/// What is over one checkpoint's UNet, or over it as a LoRA leaves it, is none over another's, whichever was drawn with before.
#[tokio::test]
async fn what_is_over_a_checkpoint_does_not_depend_on_what_was_drawn_before() {
    let folder = library_of_models();
    let checkpoints = folder.path().join("Stable-diffusion");
    let first = fs::read(checkpoints.join("tiny-sd1.safetensors")).expect("read");
    let other = turned(first, "model.diffusion_model.input_blocks.1.");
    fs::write(checkpoints.join("other.safetensors"), other).expect("written");
    let style = fixtures().join("../adapters/lycoris-locon.safetensors");
    fs::copy(style, folder.path().join("Lora/style.safetensors")).expect("copied");
    for model in ["difference", "lora"] {
        let unit = json!({ "model": model, "image": raw(&picture(64, 64, 1), 64, 64, 3) });
        let of = |checkpoint: &str, refiner: Option<&str>| Txt2ImgParams {
            checkpoint: Some(checkpoint.into()),
            refiner_checkpoint: refiner.map(Into::into),
            refiner_switch_at: refiner.map(|_| 0.5),
            steps: 6,
            ..with(&unit)
        };
        let requests = [
            of("tiny-sd1", None),
            of("tiny-sd1", Some("other")),
            of("other", None),
            of("other", Some("tiny-sd1")),
            Txt2ImgParams { prompt: "a red circle<lora:style:0.8>".into(), ..of("tiny-sd1", None) },
        ];
        let mut all = vec![];
        for order in [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]] {
            let daemon = start(folder.path(), "", &[]);
            let client = daemon.client().await;
            let mut pictures = [const { vec![] }; 5];
            for index in order {
                let result = within(client.txt2img(&requests[index])).await.expect("drawn");
                assert_eq!(result.notices, Vec::<String>::new());
                pictures[index] = result.images[0].raw.clone().expect("pixels").0;
            }
            all.push(pictures);
        }
        assert!(all[0] == all[1], "{model}");
        let [one, refined, two, back, styled] = &all[0];
        assert!(
            one != two && refined != one && refined != two && refined != back && styled != one,
            "{model}"
        );
    }
}

fn with(unit: &Json) -> Txt2ImgParams {
    Txt2ImgParams {
        plugins: [("controlnet".to_owned(), params(&json!({ "units": [unit] })))].into(),
        precision: Precision::F32,
        output: OutputParams { format: OutputFormat::Raw, dir: None },
        ..small(5)
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_unit_is_said_as_the_request_comes() {
    let folder = library_of_models();
    let daemon = start(folder.path(), "", &[]);
    let client = daemon.client().await;
    let image = || raw(&picture(64, 64, 1), 64, 64, 3);
    let of = |more: Json| {
        let mut unit = json!({ "model": "control-ldm", "image": image() });
        for (key, value) in more.as_object().expect("an object") {
            unit[key] = value.clone();
        }
        unit.as_object_mut().expect("a unit").retain(|_, value| !value.is_null());
        with(&unit)
    };
    for (unit, name, words) in [
        (json!({"model": "control-ldn"}), ErrorName::NotFound, "control-ldm"),
        (
            json!({"model": "None"}),
            ErrorName::InvalidParams,
            "model: a unit with module none needs one; there are",
        ),
        (json!({"model": "other-family"}), ErrorName::InvalidParams, "for another family"),
        (json!({"model": "decoder"}), ErrorName::NotFound, "controlnet 'decoder' is not in the library"),
        (
            json!({"model": "control-ldm", "module": "ip-adapter_clip_h"}),
            ErrorName::InvalidParams,
            "it is for IP-Adapters",
        ),
        (json!({"model": "plain", "module": "canny"}), ErrorName::InvalidParams, "take ip-adapter-auto"),
        (json!({"model": "unseen"}), ErrorName::InvalidParams, "put it into the folder clip_vision"),
        (json!({"model": "plus-wide"}), ErrorName::InvalidParams, "an IP-Adapter for another family"),
        (json!({"model": "difference-wide"}), ErrorName::InvalidParams, "for another family"),
        (json!({"model": "lora-deep"}), ErrorName::Model, "is made over another UNet than that of"),
        (json!({"module": "cany"}), ErrorName::InvalidParams, "canny"),
        (json!({"module": "reference_only"}), ErrorName::Unsupported, "attention"),
        (json!({"weight": 3}), ErrorName::InvalidParams, "weight"),
        (json!({"guidance_start": 0.6, "guidance_end": 0.4}), ErrorName::InvalidParams, "after guidance_end"),
        (json!({"image": null}), ErrorName::InvalidParams, "image: there is none"),
        (json!({"input_image": image()}), ErrorName::InvalidParams, "one and the same"),
        (json!({"module": "canny", "threshold_a": 400}), ErrorName::InvalidParams, "1 to 255"),
        (
            json!({"mask": raw(&[0; 16], 4, 4, 1)}),
            ErrorName::InvalidParams,
            "mask: it is 4x4, the image 64x64",
        ),
        (json!({"advanced_weighting": [1]}), ErrorName::InvalidParams, "7 places"),
        (json!({"control_mode": "More"}), ErrorName::InvalidParams, "Balanced"),
        (json!({"colour": 1}), ErrorName::InvalidParams, "colour"),
    ] {
        let text = refused(within(client.txt2img(&of(unit.clone()))).await, name);
        assert!(text.contains(words), "{unit}: {text}");
    }
    let empty = of(json!({ "image": raw(&[], 0, 64, 3) }));
    let text = refused(within(client.txt2img(&empty)).await, ErrorName::InvalidParams);
    assert!(text.contains("image"), "{text}");
    let mut nan = of(json!({}));
    let units = Value::Map(vec![("model".into(), "control-ldm".into()), ("weight".into(), f64::NAN.into())]);
    let units = PluginParams([("units".to_owned(), Value::Array(vec![units]))].into());
    nan.plugins.insert("controlnet".to_owned(), units);
    let text = refused(within(client.txt2img(&nan)).await, ErrorName::InvalidParams);
    assert!(text.contains("weight"), "{text}");
    // A unit that is off is of no matter.
    let off = of(json!({"enabled": false, "model": "None", "image": null}));
    let plain = Txt2ImgParams { plugins: [].into(), ..off.clone() };
    let pixels = |result: Txt2ImgResult| result.images[0].raw.clone().expect("pixels").0;
    let (found, expected) = (within(client.txt2img(&off)).await, within(client.txt2img(&plain)).await);
    assert!(pixels(found.expect("drawn")) == pixels(expected.expect("drawn")));
}

#[tokio::test]
async fn texts_name_units_and_what_hints_were_made_of_comes_when_asked_for() {
    let folder = library_of_models();
    let daemon = start(folder.path(), "", &[]);
    let client = daemon.client().await;
    let unit = json!({
        "model": "control-ldm", "image": raw(&picture(64, 64, 1), 64, 64, 3), "module": "invert", "weight": 0.5,
        "control_mode": "My prompt is more important", "save_detected_map": true,
    });
    let drawn = within(client.txt2img(&with(&unit))).await.expect("drawn");
    let text = drawn.images[0].infotext.clone().expect("a text");
    let expected = "ControlNet 0: \"Module: invert, Model: control-ldm, Weight: 0.5, Resize Mode: Crop and Resize, Processor Res: ";
    assert!(text.contains(expected) && text.contains("Control Mode: My prompt is more important"), "{text}");
    assert_eq!(drawn.artifacts.len(), 1);
    assert_eq!(drawn.artifacts[0].name, "controlnet 0 invert");
    let models: Json = within(client.call("controlnet.models", &json!({}))).await.expect("listed");
    let models = models["models"].as_array().expect("models").clone();
    assert!(models.contains(&json!("control-ldm")) && models.contains(&json!("light-authors")), "{models:?}");
}

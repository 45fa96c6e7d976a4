//! VAEs: in files of their own, beside a checkpoint, and the checkpoint's.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use latentd_client::protocol::{
    ErrorName, EventKind, ImageIn, ImageOut, LibraryListParams, LoadParams, PluginParams, Precision,
    PreviewKind, PreviewParams, ResidentModel, Txt2ImgParams, VaeDecodeMethod,
};
use serde_json::{Map, Value};

use crate::harness::{Daemon, Options, fixtures, refused, small, within};
use crate::plugin_library::{build, install};

const PREFIX: &str = "first_stage_model.";

/// Tensors of a safetensors file: name, type, shape, elements.
pub(crate) type Tensors = Vec<(String, Value, Value, Vec<u8>)>;

pub(crate) fn read(path: &Path) -> Tensors {
    let bytes = fs::read(path).expect("read");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let header: Map<String, Value> = serde_json::from_slice(&bytes[8..8 + length]).expect("JSON");
    let tensors = header.into_iter().filter(|(name, _)| name != "__metadata__");
    tensors
        .map(|(name, info)| {
            let at =
                |index: usize| info["data_offsets"][index].as_u64().expect("a place") as usize + 8 + length;
            (name, info["dtype"].clone(), info["shape"].clone(), bytes[at(0)..at(1)].to_vec())
        })
        .collect()
}

pub(crate) fn write(path: &Path, tensors: &Tensors) {
    let (mut header, mut data) = (Map::new(), Vec::<u8>::new());
    for (name, dtype, shape, bytes) in tensors {
        let start = data.len();
        data.extend(bytes);
        let offsets = [start, data.len()];
        let info = serde_json::json!({ "dtype": dtype, "shape": shape, "data_offsets": offsets });
        header.insert(name.clone(), info);
    }
    let header = serde_json::to_vec(&header).expect("JSON");
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.extend(data);
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    // Whole or not at all, as a download manager does it.
    let partial = path.with_extension("part");
    fs::write(&partial, bytes).expect("written");
    fs::rename(partial, path).expect("renamed");
}

/// The VAE of a checkpoint without its prefix, and something of its training beside it.
fn vae_of(checkpoint: &Path) -> Tensors {
    let own = |(name, dtype, shape, bytes): (String, Value, Value, Vec<u8>)| {
        name.strip_prefix(PREFIX).map(|name| (name.to_owned(), dtype, shape, bytes))
    };
    let mut vae: Tensors = read(checkpoint).into_iter().filter_map(own).collect();
    vae.push(("loss.logvar".into(), "F16".into(), serde_json::json!([]), vec![0; 2]));
    vae
}

fn checkpoint(name: &str) -> PathBuf {
    fixtures().join(format!("Stable-diffusion/{name}.safetensors"))
}

/// A models folder with the small checkpoint in it.
pub(crate) fn models() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for kind in ["Stable-diffusion", "VAE"] {
        fs::create_dir(folder.path().join(kind)).expect("made");
    }
    let tiny = folder.path().join("Stable-diffusion/tiny-sd1.safetensors");
    fs::copy(checkpoint("tiny-sd1"), tiny).expect("copied");
    folder
}

pub(crate) fn daemon(folder: &Path) -> Daemon {
    Daemon::with(Options { models: Some(folder.to_owned()), ..Options::default() })
}

async fn draw(client: &latentd_client::Client, vae: Option<&str>) -> (Vec<u8>, String) {
    let request = Txt2ImgParams { vae: vae.map(Into::into), ..small(3) };
    let image = within(client.txt2img(&request)).await.expect("drawn").images.remove(0);
    let pixels = latentd_models::image::Picture::decode(&image.png.expect("a PNG").0, 1 << 20);
    (pixels.expect("a picture").into_rgb().pixels, image.infotext.expect("a text"))
}

#[tokio::test]
async fn the_one_that_is_asked_for_draws() {
    let folder = models();
    let other = vae_of(&checkpoint("tiny-sd1-ema"));
    write(&folder.path().join("VAE/other.safetensors"), &other);
    write(&folder.path().join("VAE/same.safetensors"), &vae_of(&checkpoint("tiny-sd1")));
    let daemon = daemon(folder.path());
    let client = daemon.client().await;
    let (own, text) = draw(&client, None).await;
    assert!(!text.contains("VAE"), "{text}");
    let (others, text) = draw(&client, Some("other")).await;
    assert!(own != others);
    let model = text.find("Model: tiny-sd1, VAE hash: ").expect(&text);
    assert!(text[model..].contains(", VAE: other.safetensors"), "{text}");
    assert_eq!(draw(&client, Some("same")).await.0, own, "the same numbers");
    assert_eq!(draw(&client, Some("none")).await.0, own);
    // By its file's name and by its hash, as A1111 writes them.
    let hash = text.split("VAE hash: ").nth(1).and_then(|rest| rest.get(..10)).expect("a hash");
    for name in ["other.safetensors", "VAE/other", hash] {
        assert_eq!(draw(&client, Some(name)).await.0, others, "{name}");
    }
    let text = refused(
        within(client.txt2img(&Txt2ImgParams { vae: Some("othr".into()), ..small(1) })).await,
        ErrorName::NotFound,
    );
    assert!(text.contains("vae 'othr'") && text.contains("known: other"), "{text}");
    // Equal networks are in memory once.
    let same = LoadParams { checkpoint: "tiny-sd1".into(), vae: Some("same".into()) };
    loop {
        let model = within(client.load_model_with(&same)).await.expect("loaded");
        assert_eq!(model.vae.as_deref(), Some("same"));
        if model.shared_bytes == model.bytes {
            break;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn one_beside_a_checkpoint_is_its_own() {
    let folder = models();
    let daemon = daemon(folder.path());
    let client = daemon.client().await;
    let (own, text) = draw(&client, None).await;
    let png = |text: &str| {
        let image = latentd_models::image::RgbImage { width: 1, height: 1, pixels: vec![0; 3] };
        ImageIn::png(latentd_models::image::encode_png(&image, text).expect("encoded"))
    };
    let repeats_own =
        within(client.image_info(png(&text))).await.expect("read").request.expect("a request").into_drawing();
    assert_eq!(repeats_own.vae.as_deref(), Some("None"));

    // Found at once, before the change was noticed.
    let other = vae_of(&checkpoint("tiny-sd1-ema"));
    let beside = folder.path().join("Stable-diffusion/tiny-sd1.vae.safetensors");
    write(&beside, &other);
    let (others, text) = draw(&client, None).await;
    assert!(own != others && text.contains("VAE: tiny-sd1.vae.safetensors"), "{text}");
    assert_eq!(draw(&client, Some("Automatic")).await.0, others);
    assert_eq!(draw(&client, Some("None")).await.0, own);
    // What was drawn before is repeated as it was, and what is drawn now too.
    let repeat = |params: Txt2ImgParams| {
        let client = &client;
        async move { within(client.txt2img(&params)).await.expect("drawn").images.remove(0) }
    };
    assert!(!repeat(repeats_own).await.infotext.expect("a text").contains("VAE"));
    let info =
        within(client.image_info(png(&text))).await.expect("read").request.expect("a request").into_drawing();
    assert!(repeat(info).await.infotext.expect("a text").contains("VAE: tiny-sd1.vae.safetensors"));

    // One that only begins so counts too, in the folder of VAEs, as in A1111.
    fs::rename(&beside, folder.path().join("VAE/tiny-sd1-sharp.safetensors")).expect("moved");
    within(client.rescan()).await.expect("scanned");
    let (again, text) = draw(&client, None).await;
    assert!(again == others && text.contains("VAE: tiny-sd1-sharp.safetensors"), "{text}");
}

#[tokio::test]
async fn one_that_does_not_fit_is_refused_before_anything_is_drawn() {
    let folder = models();
    let other = vae_of(&checkpoint("tiny-sd1-ema"));
    let without = |missing: &str| other.iter().filter(|(name, ..)| name != missing).cloned().collect();
    write(&folder.path().join("VAE/cut.safetensors"), &without("decoder.mid.attn_1.q.weight"));
    let daemon = daemon(folder.path());
    let client = daemon.client().await;
    let text = refused(
        within(client.txt2img(&Txt2ImgParams { vae: Some("cut".into()), ..small(1) })).await,
        ErrorName::Model,
    );
    assert!(text.contains("cut.safetensors") && text.contains("attn_1.q"), "{text}");
    draw(&client, None).await;
}

#[tokio::test]
async fn a_checkpoint_without_one_is_drawn_with_another_files() {
    let folder = models();
    let tiny = checkpoint("tiny-sd1");
    let (own, rest): (Tensors, Tensors) =
        read(&tiny).into_iter().partition(|(name, ..)| name.starts_with(PREFIX));
    write(&folder.path().join("Stable-diffusion/bare.safetensors"), &rest);
    write(&folder.path().join("VAE/own.safetensors"), &own);
    let daemon = daemon(folder.path());
    let client = daemon.client().await;
    let bare = |vae: Option<&str>| Txt2ImgParams {
        checkpoint: Some("bare".into()),
        vae: vae.map(Into::into),
        ..small(3)
    };
    let text = refused(within(client.txt2img(&bare(None))).await, ErrorName::Model);
    assert!(text.contains("holds no VAE") && text.contains("`vae`"), "{text}");
    let drawn = within(client.txt2img(&bare(Some("own")))).await.expect("drawn").images.remove(0);
    let whole = within(client.txt2img(&small(3))).await.expect("drawn").images.remove(0);
    let pixels = |image: &ImageOut| {
        let png = &image.png.as_ref().expect("a PNG").0;
        latentd_models::image::Picture::decode(png, 1 << 20).expect("a picture").into_rgb().pixels
    };
    assert_eq!(pixels(&drawn), pixels(&whole));
    // It is no one's default, though it comes first.
    let listed = within(client.library(&LibraryListParams::default())).await.expect("listed");
    assert_eq!(listed.default_checkpoint.as_deref(), Some("tiny-sd1"));
    assert!(listed.entries.iter().any(|entry| entry.name == "bare" && entry.lacks_vae));
}

#[tokio::test]
async fn a_new_vae_in_the_place_of_one_moves_no_pin() {
    let folder = models();
    let other = checkpoint("tiny-sd1-ema");
    fs::copy(&other, folder.path().join("Stable-diffusion/other.safetensors")).expect("copied");
    let vae = folder.path().join("VAE/shared.safetensors");
    write(&vae, &vae_of(&checkpoint("tiny-sd1")));
    let daemon = daemon(folder.path());
    let client = daemon.client().await;
    let params = LoadParams { checkpoint: "tiny-sd1".into(), vae: Some("shared".into()) };
    within(client.load_model_with(&params)).await.expect("loaded");
    within(client.pin_model("tiny-sd1", true)).await.expect("pinned");
    write(&vae, &vae_of(&other));
    let request = Txt2ImgParams { checkpoint: Some("other".into()), vae: Some("shared".into()), ..small(1) };
    within(client.txt2img(&request)).await.expect("drawn");
    let pinned = |models: Vec<ResidentModel>| -> Vec<String> {
        models.into_iter().filter(|model| model.pinned).map(|model| model.name).collect()
    };
    assert_eq!(pinned(within(client.loaded_models()).await.expect("listed")), ["tiny-sd1"]);
    // Its own next job has the new one, and the pin with it.
    let request = Txt2ImgParams { vae: Some("shared".into()), ..small(1) };
    within(client.txt2img(&request)).await.expect("drawn");
    assert_eq!(pinned(within(client.loaded_models()).await.expect("listed")), ["tiny-sd1"]);
    assert_eq!(within(client.loaded_models()).await.expect("listed").len(), 2);
}

#[tokio::test]
async fn a_decoder_alone_will_do() {
    let folder = models();
    let other = vae_of(&checkpoint("tiny-sd1-ema"));
    let is_decoder = |name: &str| !name.starts_with("encoder.") && !name.starts_with("quant_conv.");
    let decoder = other.iter().filter(|(name, ..)| is_decoder(name)).cloned().collect();
    write(&folder.path().join("VAE/whole.safetensors"), &other);
    write(&folder.path().join("VAE/decoder.safetensors"), &decoder);
    let daemon = daemon(folder.path());
    let client = daemon.client().await;
    assert_eq!(draw(&client, Some("decoder")).await.0, draw(&client, Some("whole")).await.0);
}

/// Makes a residual block give NaN in bf16 and nothing of the kind in f32: by a weight that only f32 can hold, of an input
/// that is always 0.
fn overflow_in_bf16(tensors: &mut Tensors, norm: &str, convolution: &str) {
    let widened = |pair: &[u8; 2]| {
        let bits = u16::from_le_bytes(*pair);
        let (exponent, fraction) = (bits >> 10 & 31, f32::from(bits & 1023) / 1024.0);
        let magnitude = match exponent {
            0 => fraction * 2f32.powi(-14),
            _ => (1.0 + fraction) * 2f32.powi(i32::from(exponent) - 15),
        };
        if bits >> 15 == 0 { magnitude } else { -magnitude }
    };
    for (name, dtype, _, bytes) in tensors {
        let is_norm = name.strip_prefix(norm).is_some_and(|end| end == ".weight" || end == ".bias");
        if name.strip_prefix(convolution) != Some(".weight") && !is_norm {
            continue;
        }
        assert_eq!(*dtype, "F16");
        let mut values: Vec<f32> = bytes.as_chunks::<2>().0.iter().map(widened).collect();
        values[0] = if is_norm { 0.0 } else { 3.4e38 };
        *dtype = "F32".into();
        *bytes = values.into_iter().flat_map(f32::to_le_bytes).collect();
    }
}

#[tokio::test]
async fn what_comes_out_as_nan_is_drawn_again_in_f32() {
    let folder = models();
    let mut vae = vae_of(&checkpoint("tiny-sd1"));
    overflow_in_bf16(&mut vae, "decoder.mid.block_1.norm1", "decoder.mid.block_1.conv1");
    write(&folder.path().join("VAE/large.safetensors"), &vae);
    let mut whole = read(&checkpoint("tiny-sd1"));
    let block = "model.diffusion_model.middle_block.0";
    overflow_in_bf16(&mut whole, &format!("{block}.in_layers.0"), &format!("{block}.in_layers.2"));
    write(&folder.path().join("Stable-diffusion/large.safetensors"), &whole);
    let daemon = daemon(folder.path());
    let client = daemon.client().await;
    let of_vae =
        Txt2ImgParams { vae: Some("large".into()), precision: Precision::Bf16, batch_size: 2, ..small(1) };
    let drawn = within(client.txt2img(&of_vae)).await.expect("drawn");
    assert_eq!(drawn.notices, ["the VAE's picture came out as NaN and was decoded again in f32"]);
    assert_eq!((drawn.precision.as_str(), drawn.images.len()), ("bf16", 2));
    let of_unet = Txt2ImgParams { vae: None, checkpoint: Some("large".into()), ..of_vae.clone() };
    let drawn = within(client.txt2img(&of_unet)).await.expect("drawn");
    assert!(drawn.notices[0].contains("UNet") && drawn.notices[0].contains("again in f32"), "{drawn:?}");
    assert_eq!(drawn.precision, "f32");
    let in_f32 = Txt2ImgParams { precision: Precision::F32, ..of_unet };
    let wide = within(client.txt2img(&in_f32)).await.expect("drawn");
    assert!(wide.notices.is_empty() && wide.images == drawn.images);
    // A plugin that computes with what is NaN already is not to blame.
    let library = build("plugin-api/examples/cfg-rescale/cfg-rescale.cpp", &[]);
    install(&daemon, "cfg-rescale.so", &library);
    let plugins = BTreeMap::from([("cfg-rescale".to_owned(), PluginParams::default())]);
    let with_plugin = Txt2ImgParams { plugins, precision: Precision::Bf16, ..in_f32.clone() };
    let drawn = within(client.txt2img(&with_plugin)).await.expect("drawn");
    assert!(
        drawn.notices[0].contains("cfg-rescale") && drawn.notices[0].contains("again in f32"),
        "{drawn:?}"
    );
    assert_eq!(drawn.precision, "f32");
    // Nor is one that asks the model, and is answered so.
    install(&daemon, "wraps.so", &build("tests/fixtures/plugins/wraps.c", &["-std=gnu99"]));
    let params = PluginParams([("act".to_owned(), "half".into())].into());
    let plugins = BTreeMap::from([("wraps".to_owned(), params)]);
    let asking = Txt2ImgParams { plugins, precision: Precision::Bf16, ..in_f32 };
    let drawn = within(client.txt2img(&asking)).await.expect("drawn");
    assert!(drawn.notices[0].contains("UNet") && drawn.notices[0].contains("again in f32"), "{drawn:?}");
    assert_eq!(drawn.precision, "f32");
}

/// A decoder of TAESD's shape with made-up weights, as A1111 names its tensors.
pub(crate) fn taesd() -> Tensors {
    let mut tensors: Tensors = vec![];
    let mut add = |name: String, shape: &[usize]| {
        let count: usize = shape.iter().product();
        let values =
            (0..count).map(|at| (((at * 7919 + name.len() * 31) % 2001) as f32 / 1000.0 - 1.0) * 0.05);
        let bytes = values.flat_map(f32::to_le_bytes).collect();
        tensors.push((name, "F32".into(), serde_json::json!(shape), bytes));
    };
    for layer in [3, 4, 5, 8, 9, 10, 13, 14, 15, 18] {
        for part in [0, 2, 4] {
            add(format!("{layer}.conv.{part}.weight"), &[64, 64, 3, 3]);
            add(format!("{layer}.conv.{part}.bias"), &[64]);
        }
    }
    for layer in [7, 12, 17] {
        add(format!("{layer}.weight"), &[64, 64, 3, 3]);
    }
    for (layer, outputs, inputs) in [(1, 64, 4), (19, 3, 64)] {
        add(format!("{layer}.weight"), &[outputs, inputs, 3, 3]);
        add(format!("{layer}.bias"), &[outputs]);
    }
    tensors
}

#[tokio::test]
async fn taesd_makes_pictures_and_previews_where_it_is_there() {
    let folder = models();
    let daemon = daemon(folder.path());
    let client = daemon.client().await;
    let by_taesd = Txt2ImgParams { sd_vae_decode_method: VaeDecodeMethod::Taesd, ..small(3) };
    let text = refused(within(client.txt2img(&by_taesd)).await, ErrorName::NotFound);
    assert!(text.contains("taesd_decoder.pth") && text.contains("VAE-approx"), "{text}");
    // A1111's own approximation, which it ships, is another network.
    let zeros = |name: &str, shape: [usize; 4]| {
        let bytes = vec![0; 4 * shape.iter().product::<usize>()];
        (name.to_owned(), "F32".into(), serde_json::json!(shape), bytes)
    };
    let approximation = vec![zeros("conv1.weight", [8, 4, 7, 7]), zeros("conv8.weight", [3, 8, 3, 3])];
    write(&folder.path().join("VAE-approx/model.safetensors"), &approximation);
    within(client.rescan()).await.expect("scanned");
    refused(within(client.txt2img(&by_taesd)).await, ErrorName::NotFound);
    let preview = PreviewParams { every: 1, kind: PreviewKind::Taesd };
    let previewed = Txt2ImgParams { preview: Some(preview), ..small(3) };
    // Without it previews are of latents, and the result says so.
    let (size, notices) = preview_of(&client, &previewed).await;
    assert_eq!(size, (8, 8));
    assert!(notices.iter().any(|notice| notice.contains("taesd_decoder.pth")), "{notices:?}");

    write(&folder.path().join("VAE-approx/taesd_decoder.safetensors"), &taesd());
    within(client.rescan()).await.expect("scanned");
    let drawn = within(client.txt2img(&by_taesd)).await.expect("drawn").images.remove(0);
    let text = drawn.infotext.clone().expect("a text");
    assert!(text.contains("VAE Decoder: TAESD"), "{text}");
    assert_eq!((drawn.width, drawn.height), (64, 64));
    let png = drawn.png.clone().expect("a PNG").0;
    let info = within(client.image_info(ImageIn::png(png.clone()))).await.expect("read");
    let again = within(client.txt2img(&info.request.expect("a request").into_drawing()))
        .await
        .expect("drawn")
        .images
        .remove(0);
    assert!(again.png.expect("a PNG").0 == png, "what the picture says draws it again");
    let own = within(client.txt2img(&small(3))).await.expect("drawn").images.remove(0);
    assert!(own.png.expect("a PNG").0 != png);
    let (size, notices) = preview_of(&client, &previewed).await;
    assert_eq!(size, (64, 64));
    assert!(notices.is_empty(), "{notices:?}");
}

/// The size of a request's first preview, and its notices.
async fn preview_of(client: &latentd_client::Client, request: &Txt2ImgParams) -> ((u32, u32), Vec<String>) {
    let mut events = within(client.subscribe_all()).await.expect("subscribed");
    let job = within(client.submit("txt2img", request, None)).await.expect("submitted");
    let image = loop {
        let event = within(events.next()).await.expect("an event");
        if let EventKind::Preview { image, .. } = event.kind {
            break image;
        }
    };
    let result = within(client.wait(&job)).await.expect("drawn");
    ((image.width, image.height), result.notices)
}

#[tokio::test]
async fn taesd_is_planned_for_like_everything_else() {
    let folder = models();
    write(&folder.path().join("VAE-approx/taesd_decoder.safetensors"), &taesd());
    let flags = ["--memory-bytes".to_owned(), (64 << 20).to_string()].into();
    let daemon =
        Daemon::with(Options { models: Some(folder.path().to_owned()), flags, ..Options::default() });
    let client = daemon.client().await;
    let request =
        Txt2ImgParams { width: Some(256), height: Some(256), precision: Precision::F32, ..small(3) };
    let drawn = within(client.txt2img(&request)).await.expect("it fits").images;
    // Its maps are as large as the picture.
    let by_taesd = Txt2ImgParams { sd_vae_decode_method: VaeDecodeMethod::Taesd, ..request.clone() };
    let text = refused(within(client.txt2img(&by_taesd)).await, ErrorName::Memory);
    assert!(text.contains("needs about"), "{text}");
    // Previews are no reason to draw nothing.
    let preview = PreviewParams { every: 1, kind: PreviewKind::Taesd };
    let previewed = Txt2ImgParams { preview: Some(preview), ..request.clone() };
    let (size, notices) = preview_of(&client, &previewed).await;
    assert_eq!(size, (32, 32));
    assert!(notices.iter().any(|notice| notice.contains("previews are of latents alone")), "{notices:?}");
    assert_eq!(within(client.txt2img(&previewed)).await.expect("drawn").images, drawn);
}

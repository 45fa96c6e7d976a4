//! Values of a picture's text: as Python writes them, and what is taken for one.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::str::FromStr;

use latentd_client::protocol::{
    Emphasis, ImageIn, LoraParams, OutpaintParams, PluginParams, Precision, Prompt, RegionParams, Rng,
    Txt2ImgParams, VaeDecodeMethod,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map as JsonMap, Value as Json};

use super::told::ToldEngine;

/// A text, if there is one.
pub(super) fn word(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// A VAE, unless it is said to be no file.
pub(super) fn vae(text: &str) -> Option<String> {
    word(text).filter(|name| !name.starts_with("Default"))
}

/// Something that is said when it is on.
pub(super) fn flag(is_on: bool) -> Option<String> {
    is_on.then(|| "True".to_owned())
}

/// What Python writes of a flag.
pub(super) fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// A number in a range.
pub(super) fn number(text: &str, range: RangeInclusive<f64>) -> Option<f64> {
    text.trim().parse().ok().filter(|number| range.contains(number))
}

/// A whole number in a range; programs write some with a point.
pub(super) fn whole<T: FromStr + PartialOrd>(text: &str, range: RangeInclusive<T>) -> Option<T> {
    let text = text.trim();
    let pointed = text.split_once('.').filter(|(_, share)| share.bytes().all(|digit| digit == b'0'));
    let text = pointed.map_or(text, |(whole, _)| whole);
    text.parse().ok().filter(|number| range.contains(number))
}

/// Width and height, such as `512x768`, both in a range.
pub(super) fn sides<T: FromStr + PartialOrd + Clone>(text: &str, range: RangeInclusive<T>) -> Option<(T, T)> {
    let (width, height) = text.trim().split_once('x')?;
    Some((whole(width, range.clone())?, whole(height, range)?))
}

/// A width or height that can be drawn: of others A1111 draws what whole latents there are.
pub(super) fn side(text: &str) -> Option<u32> {
    whole(text, 8..=4096).map(|side: u32| side - side % 8)
}

/// A size that can be drawn.
pub(super) fn size(text: &str) -> Option<(u32, u32)> {
    let (width, height) = text.trim().split_once('x')?;
    Some((side(width)?, side(height)?))
}

/// A hypernetwork's name; the first versions of A1111 have its hash behind it, in brackets.
pub(super) fn hypernetwork(text: &str) -> &str {
    let hash = text.strip_suffix(')').and_then(|text| text.rsplit_once('('));
    let is_hash = |hash: &str| hash.len() == 8 && hash.bytes().all(|digit| digit.is_ascii_hexdigit());
    hash.filter(|(_, hash)| is_hash(hash)).map_or(text, |(name, _)| name)
}

/// A value unless it is the default.
pub(super) fn unless<T: Copy + PartialEq>(value: T, default: T) -> Option<T> {
    (value != default).then_some(value)
}

/// The one with this name, whatever its letter case.
pub(super) fn one_of<T: Copy>(text: &str, all: &[T], name: fn(T) -> &'static str) -> Option<T> {
    all.iter().find(|each| name(**each).eq_ignore_ascii_case(text.trim())).copied()
}

/// A1111's "GPU" is what a CUDA card draws, as most were.
pub(super) fn rng(text: &str) -> Option<Rng> {
    match text.to_ascii_uppercase().as_str() {
        "NV" | "GPU" => Some(Rng::Nv),
        "CPU" => Some(Rng::Cpu),
        _ => None,
    }
}

/// What brackets do, if not what they always did.
pub(super) fn emphasis(emphasis: Emphasis) -> Option<String> {
    (emphasis != Emphasis::Original).then(|| emphasis.name().to_owned())
}

pub(super) fn emphasis_of(text: &str) -> Option<Emphasis> {
    Emphasis::ALL.into_iter().find(|each| each.name() == text)
}

/// A1111 does not tell it.
pub(super) fn backtrack(tokens: u32) -> Option<String> {
    (tokens != Txt2ImgParams::default().comma_padding_backtrack).then(|| tokens.to_string())
}

pub(super) fn decoder(method: VaeDecodeMethod) -> Option<String> {
    match method {
        VaeDecodeMethod::Taesd => Some("TAESD".to_owned()),
        VaeDecodeMethod::Full => None,
    }
}

pub(super) fn decoder_of(text: &str) -> Option<VaeDecodeMethod> {
    match text {
        "TAESD" => Some(VaeDecodeMethod::Taesd),
        "Full" => Some(VaeDecodeMethod::Full),
        _ => None,
    }
}

/// LoRAs that the prompt cannot say: names with colons, for one.
pub(super) fn loras(loras: &[LoraParams]) -> Option<String> {
    if loras.is_empty() { None } else { serde_json::to_string(loras).ok() }
}

pub(super) fn loras_of(text: &str) -> Option<Vec<LoraParams>> {
    let loras: Vec<LoraParams> = serde_json::from_str(text).ok()?;
    let is_strength = |strength: Option<f64>| strength.is_none_or(|strength| strength.abs() <= 1000.0);
    let can_be_asked_for = |lora: &LoraParams| {
        (1..=1000).contains(&lora.name.chars().count())
            && is_strength(lora.te)
            && is_strength(lora.unet)
            && lora.dynamic.is_none_or(|ranks| (1..=100_000).contains(&ranks))
    };
    (loras.len() <= 100 && loras.iter().all(can_be_asked_for)).then_some(loras)
}

/// Prompts of tiles.
pub(super) fn prompts_of_tiles(prompts: &[String]) -> Option<String> {
    if prompts.is_empty() { None } else { serde_json::to_string(prompts).ok() }
}

pub(super) fn prompts_of_tiles_of(text: &str) -> Option<Vec<String>> {
    let prompts: Vec<String> = serde_json::from_str(text).ok()?;
    let can_be_asked_for = |prompt: &String| prompt.chars().count() <= 200_000;
    (prompts.len() <= 4096 && prompts.iter().all(can_be_asked_for)).then_some(prompts)
}

/// A region as it is told: its mask by its SHA-256.
#[derive(Serialize, Deserialize)]
struct ToldRegion {
    mask: String,
    prompt: String,
    weight: f64,
}

/// Regions, by the names of their masks.
pub(super) fn regions(regions: &[RegionParams]) -> Option<String> {
    let told = |region: &RegionParams| {
        let RegionParams { mask, prompt, weight } = region.clone();
        Some(ToldRegion { mask: mask.blob?, prompt, weight })
    };
    let told: Vec<ToldRegion> = regions.iter().filter_map(told).collect();
    if told.is_empty() { None } else { serde_json::to_string(&told).ok() }
}

pub(super) fn regions_of(text: &str) -> Option<Vec<RegionParams>> {
    let told: Vec<ToldRegion> = serde_json::from_str(text).ok()?;
    let is_name = |mask: &str| mask.len() == 64 && mask.bytes().all(|digit| digit.is_ascii_hexdigit());
    let can_be_asked_for = |region: &ToldRegion| {
        is_name(&region.mask)
            && region.prompt.chars().count() <= 200_000
            && (0.0..=1.0).contains(&region.weight)
    };
    let read =
        |ToldRegion { mask, prompt, weight }| RegionParams { mask: ImageIn::blob(mask), prompt, weight };
    (told.len() <= 16 && told.iter().all(can_be_asked_for)).then(|| told.into_iter().map(read).collect())
}

/// A plugin as it is told.
#[derive(Serialize, Deserialize)]
struct ToldPlugin {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(default)]
    params: JsonMap<String, Json>,
}

/// The plugins that a request may have.
const MOST_PLUGINS: usize = 32;
/// Maps and lists inside each other in a plugin's parameters, themselves counted: with what a submit has around them no message
/// may have more.
const DEEPEST_PARAMS: usize = 64 - 5;

/// Plugins with their versions, unless JSON cannot carry what one of them was given: such a request cannot be told.
pub(super) fn plugins(
    plugins: &BTreeMap<String, PluginParams>,
    versions: &BTreeMap<String, String>,
) -> Option<String> {
    let told = |(name, params): (&String, &PluginParams)| {
        let version = versions.get(name).cloned();
        Some((name.clone(), ToldPlugin { version, params: params.to_json()? }))
    };
    let told: BTreeMap<String, ToldPlugin> = plugins.iter().map(told).collect::<Option<_>>()?;
    if told.is_empty() { None } else { serde_json::to_string(&told).ok() }
}

/// Plugins' parameters and versions, by their names.
type ReadPlugins = (BTreeMap<String, PluginParams>, BTreeMap<String, String>);

pub(super) fn plugins_of(text: &str) -> Option<ReadPlugins> {
    let told: BTreeMap<String, ToldPlugin> = serde_json::from_str(text).ok()?;
    let can_be_asked_for = told.values().all(|told| is_sendable(told.params.values(), DEEPEST_PARAMS));
    if told.len() > MOST_PLUGINS || !can_be_asked_for {
        return None;
    }
    let mut read = ReadPlugins::default();
    for (name, ToldPlugin { version, params }) in told {
        read.1.extend(version.map(|version| (name.clone(), version)));
        read.0.insert(name, PluginParams::from_json(params));
    }
    Some(read)
}

/// Engines, with their plugins and the versions of these.
pub(in crate::tasks) fn engines(engines: &[ToldEngine]) -> Option<String> {
    if engines.is_empty() { None } else { serde_json::to_string(engines).ok() }
}

pub(super) fn engines_of(text: &str) -> Option<Vec<ToldEngine>> {
    serde_json::from_str(text).ok().filter(|told: &Vec<ToldEngine>| (1..=MOST_PLUGINS).contains(&told.len()))
}

/// Whether what a map or a list holds, which takes one of `levels` itself, can stand in a message.
fn is_sendable<'a>(mut values: impl Iterator<Item = &'a Json>, levels: usize) -> bool {
    levels > 0
        && values.all(|value| match value {
            Json::Array(items) => is_sendable(items.iter(), levels - 1),
            Json::Object(entries) => is_sendable(entries.values(), levels - 1),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => true,
        })
}

/// A picture by its SHA-256.
pub(super) fn blob(text: &str) -> Option<ImageIn> {
    let is_name = text.len() == 64 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_name.then(|| ImageIn::blob(text))
}

/// How far a picture was continued: left, right, up and down.
pub(super) fn margins(outpaint: &OutpaintParams) -> String {
    let OutpaintParams { left, right, up, down, .. } = outpaint;
    format!("{left}, {right}, {up}, {down}")
}

pub(super) fn margins_of(text: &str) -> Option<[u32; 4]> {
    let sides = text.split(',').map(|side| whole(side, 0..=65_536)).collect::<Option<Vec<u32>>>()?;
    sides.try_into().ok()
}

/// A prompt that can be asked for.
pub(super) fn prompt(text: &str) -> Option<Prompt> {
    (text.chars().count() <= 200_000).then(|| text.into())
}

/// An engine's name that can be asked for.
pub(super) fn engine(name: &str) -> Option<String> {
    word(name).filter(|name| name.chars().count() <= 1000)
}

/// What is there before it is drawn, if not what was there.
pub(super) fn content(fill: u8) -> Option<String> {
    CONTENTS.iter().find(|(each, _)| *each == fill).map(|(_, name)| (*name).to_owned())
}

pub(super) fn content_of(text: &str) -> Option<u8> {
    CONTENTS.iter().find(|(_, name)| *name == text).map(|(fill, _)| *fill)
}

/// `inpainting_fill` as A1111 writes it.
const CONTENTS: [(u8, &str); 3] = [(0, "fill"), (2, "latent noise"), (3, "latent nothing")];

/// `resize_mode` by A1111's names for it, which it does not write.
const RESIZE_MODES: [&str; 4] =
    ["Just resize", "Crop and resize", "Resize and fill", "Just resize (latent upscale)"];

pub(super) fn resize_mode(mode: u8) -> Option<String> {
    let name = RESIZE_MODES.get(usize::from(mode)).filter(|_| mode > 0);
    name.map(|name| (*name).to_owned())
}

pub(super) fn resize_mode_of(text: &str) -> Option<u8> {
    RESIZE_MODES.iter().position(|name| *name == text).map(|mode| mode as u8)
}

/// `#rrggbb`, unless it is white.
pub(super) fn background(colour: &str) -> Option<String> {
    (!colour.eq_ignore_ascii_case("#ffffff")).then(|| colour.to_owned())
}

pub(super) fn colour(text: &str) -> Option<String> {
    let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6);
    digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit())).map(|_| text.to_owned())
}

/// A picture of ours that does not tell was drawn in f32.
pub(super) fn precision(precision: Precision) -> Option<String> {
    match precision {
        Precision::Bf16 => Some("bf16".to_owned()),
        Precision::F16 => Some("f16".to_owned()),
        Precision::F32 | Precision::Auto => None,
    }
}

pub(super) fn precision_of(text: &str) -> Option<Precision> {
    match text {
        "bf16" => Some(Precision::Bf16),
        "f16" => Some(Precision::F16),
        "f32" => Some(Precision::F32),
        _ => None,
    }
}

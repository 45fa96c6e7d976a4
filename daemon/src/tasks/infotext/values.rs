//! Values of a picture's text: as Python writes them, and what is taken for one.

use std::ops::RangeInclusive;
use std::str::FromStr;

use latentd_client::protocol::{LoraParams, Precision, Rng, VaeDecodeMethod};

/// A text, if there is one.
pub(super) fn word(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
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

/// A size that can be drawn.
pub(super) fn size(text: &str) -> Option<(u32, u32)> {
    sides(text, 8..=4096).filter(|(width, height): &(u32, u32)| (width % 8, height % 8) == (0, 0))
}

/// A value unless it is the default.
pub(super) fn unless<T: PartialEq>(value: T, default: T) -> Option<T> {
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

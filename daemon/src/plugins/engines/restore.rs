//! A picture whose faces an engine restores.

use std::sync::Arc;

use latentd_models::image::Picture;
use serde::Serialize;

use super::engine::Engine;
use super::running::Engines;
use crate::error::{Error, Result};
use crate::plugins::engine_calls::{Asked, RunsEngines};
use crate::plugins::engine_kinds::Kind;
use crate::plugins::objects::Image;

/// What it is told beside the picture.
#[derive(Serialize)]
struct Wish {
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<f64>,
}

/// Bytes that it takes beside a picture of this size and what becomes of it: as the engine sees it, and as it is handed over.
pub(super) fn bytes_beside((width, height): (usize, usize)) -> u64 {
    const COLOURS: u64 = 3;
    2 * COLOURS * width as u64 * height as u64
}

/// The picture with its faces restored; its opacity stays. `weight` says how close it stays to what it was, 0…1, to one that is
/// told so.
pub(in crate::plugins) fn restore(
    engines: &Engines<'_>,
    engine: &Engine,
    picture: &Picture,
    weight: Option<f64>,
) -> Result<Picture> {
    let params = rmp_serde::to_vec_named(&Wish { weight })
        .map_err(|error| Error::internal(format!("a restorer's parameters: {error}")))?;
    let Picture { width, height, channels, pixels } = picture;
    let pixels = Arc::new(pixels.clone());
    let image = Image { width: *width, height: *height, channels: channels.count(), pixels };
    let asked = Asked {
        kind: Kind::Restorer,
        entry: engine.entry.clone(),
        image,
        mask: None,
        width: 0,
        height: 0,
        strength: 1.0,
        threshold: 0.0,
        params,
    };
    let made = engines.run(&asked)?.image;
    let made = made.ok_or_else(|| Error::internal("a restorer without an image"))?;
    let (width, height) = (made.width as u32, made.height as u32);
    let pixels = Arc::unwrap_or_clone(made.pixels);
    Ok(Picture::from_raw(pixels, width, height, made.channels as u32)?)
}

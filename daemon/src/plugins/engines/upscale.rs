//! A picture made larger by an engine: the host cuts it into tiles and puts them together, alpha apart from colours.

use std::sync::Arc;

use latentd_models::Tensor;
use latentd_models::image::{Channels, LONGEST_SIDE, MOST_PIXELS, Picture};

use super::engine::Engine;
use super::running::Engines;
use crate::error::{Class, Error, Result};
use crate::plugins::objects::{Content, Image};

/// Once over, by what the engine is made for. `told` is told after each tile how many are done, of how many.
pub(in crate::plugins) fn upscale(
    engines: &Engines<'_>,
    engine: &Engine,
    picture: &Picture,
    told: &mut dyn FnMut(usize, usize),
) -> Result<Picture> {
    let Picture { width, height, channels, .. } = *picture;
    let tiling = engine.tiling;
    let (wide, high) = (width * tiling.scale, height * tiling.scale);
    if wide.max(high) > LONGEST_SIDE || wide.saturating_mul(high) > MOST_PIXELS {
        let text = format!(
            "{}: {width}x{height} would become {wide}x{high}; sides of {LONGEST_SIDE} and {MOST_PIXELS} pixels are possible",
            engine.at()
        );
        return Err(Error::new(Class::InvalidParams, text));
    }
    let count = channels.count();
    let numbers = tiling.numbers(width, height) * size_of::<f32>();
    let bytes = wide * high * count + numbers;
    let _room = engines.job.reserve(bytes as u64, engine.plugin())?;
    let mut pixels = vec![0; wide * high * count];
    let tiles = tiling.count(width, height);
    // Of grey, and of alpha, three of the same are made.
    let parts: &[fn(usize) -> usize] = match channels {
        Channels::Grey => &[|_| 0],
        Channels::Rgb => &[|colour| colour],
        Channels::Rgba => &[|colour| colour, |_| 3],
    };
    for (number, from) in parts.iter().enumerate() {
        let value = |x: usize, y: usize, channel: usize| {
            let at = (y * width + x) * count + channel;
            f32::from(picture.pixels.get(at).copied().unwrap_or_default()) / 255.0
        };
        let colours = |x: usize, y: usize| [0, 1, 2].map(|colour| value(x, y, from(colour)));
        let mut rows = pixels.chunks_exact_mut(wide * count);
        let mut finished = |row: &[f32]| {
            let to = rows.next().unwrap_or_default();
            for (pixel, made) in to.chunks_exact_mut(count).zip(row.chunks_exact(3)) {
                if from(0) == from(1) {
                    let mean = made.iter().sum::<f32>() / 3.0;
                    if let Some(place) = pixel.get_mut(from(0)) {
                        *place = rounded(mean);
                    }
                } else {
                    pixel.iter_mut().zip(made).for_each(|(place, made)| *place = rounded(*made));
                }
            }
        };
        let mut failure = None;
        let mut make = |of: Tensor, before: usize| {
            let done = before + of.dim(0);
            let made = run(engines, engine, of).map_err(|error| {
                let text = error.text.clone();
                failure = Some(error);
                latentd_models::Error::Stage(text)
            })?;
            told(number * tiles + done, parts.len() * tiles);
            Ok(made)
        };
        let gone = tiling.go((width, height), &colours, &mut make, &mut finished);
        gone.map_err(|error| failure.unwrap_or_else(|| error.into()))?;
    }
    Ok(Picture { width: wide, height: high, channels, pixels })
}

/// The same of an image.
pub(super) fn upscale_image(engines: &Engines<'_>, engine: &Engine, image: &Image) -> Result<Image> {
    let (width, height) = (image.width as u32, image.height as u32);
    let picture = Picture::from_raw(image.pixels.to_vec(), width, height, image.channels as u32)?;
    let Picture { width, height, channels, pixels } = upscale(engines, engine, &picture, &mut |_, _| ())?;
    Ok(Image { width, height, channels: channels.count(), pixels: Arc::new(pixels) })
}

fn rounded(value: f32) -> u8 {
    (value.clamp(0.0, 1.0) * 255.0).round() as u8
}

/// Tiles of 0…1 through the engine.
fn run(engines: &Engines<'_>, engine: &Engine, tiles: Tensor) -> Result<Tensor> {
    if engines.job.is_cancelled() {
        return Err(Error::new(Class::Cancelled, format!("cancelled in {}", engine.at())));
    }
    if engine.as_float {
        return match engines.run_content(engine, &Content::Tensor(tiles))? {
            Content::Tensor(made) => Ok(made),
            _ => Err(Error::internal("no tensor where one was")),
        };
    }
    let (height, width) = (tiles.dim(2), tiles.dim(3));
    let plane = height * width;
    let value = |at: usize| tiles.values().get(at % 3 * plane + at / 3).copied().unwrap_or_default();
    let pixels = (0..3 * plane).map(|at| rounded(value(at))).collect();
    let image = Image { width, height, channels: 3, pixels: Arc::new(pixels) };
    let Content::Image(made) = engines.run_content(engine, &Content::Image(image))? else {
        return Err(Error::internal("no image where one was"));
    };
    let plane = made.width * made.height;
    let value = |at: usize| {
        f32::from(made.pixels.get(at % plane * 3 + at / plane).copied().unwrap_or_default()) / 255.0
    };
    Ok(Tensor::new((0..3 * plane).map(value).collect(), [1, 3, made.height, made.width])?)
}

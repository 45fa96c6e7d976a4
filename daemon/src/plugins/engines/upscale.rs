//! A picture made larger by an engine: the host cuts it into tiles and puts them together, alpha apart from colours. Rows of the
//! result go on as they are finished, to another size if that is wanted.

use std::sync::Arc;

use latentd_models::Tensor;
use latentd_models::image::{
    Channels, Filter, LONGEST_SIDE, MOST_PIXELS, Picture, Sample, StretchRows, Tiling, upscaler_rounds,
};

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
    check_sides(engine, (width, height))?;
    let (wide, high) = (width * tiling.scale, height * tiling.scale);
    let _room = engines.job.reserve((wide * high * channels.count()) as u64, engine.plugin())?;
    upscale_to(engines, (engine, tiling), picture, (wide, high), told)
}

/// Refuses what would be larger than any picture may be.
fn check_sides(engine: &Engine, (width, height): (usize, usize)) -> Result<()> {
    let made = (width.saturating_mul(engine.scale()), height.saturating_mul(engine.scale()));
    check_size(engine, (width, height), made)
}

/// Likewise, of this size.
fn check_size(engine: &Engine, (width, height): (usize, usize), (wide, high): (usize, usize)) -> Result<()> {
    if wide.max(high) <= LONGEST_SIDE && wide.saturating_mul(high) <= MOST_PIXELS {
        return Ok(());
    }
    let text = format!(
        "{}: {width}x{height} would become {wide}x{high}; sides of {LONGEST_SIDE} and {MOST_PIXELS} pixels are possible",
        engine.at()
    );
    Err(Error::new(Class::InvalidParams, text))
}

/// Bytes that [`upscale_to`] takes beside the picture and its result.
pub(in crate::plugins) fn bytes_on_the_way<S: Sample>(
    tiling: Tiling,
    (width, height): (usize, usize),
    size: (usize, usize),
) -> u64 {
    let made = (width * tiling.scale, height * tiling.scale);
    let kept = StretchRows::<S>::numbers(made, size, 3, Filter::Lanczos) * size_of::<S>();
    (tiling.numbers(width, height) * size_of::<f32>() + kept) as u64
}

/// Once over, in these tiles, and to this size by Lanczos: colours and opacity each for themselves. Whoever asks has counted the
/// result.
pub(in crate::plugins) fn upscale_to<S: Sample>(
    engines: &Engines<'_>,
    (engine, tiling): (&Engine, Tiling),
    picture: &Picture<S>,
    size: (usize, usize),
    told: &mut dyn FnMut(usize, usize),
) -> Result<Picture<S>> {
    let Picture { width, height, channels, .. } = *picture;
    check_sides(engine, (width, height))?;
    let made = (width * tiling.scale, height * tiling.scale);
    let bytes = bytes_on_the_way::<S>(tiling, (width, height), size);
    let _room = engines.job.reserve(bytes, engine.plugin())?;
    let count = channels.count();
    let mut pixels = vec![S::default(); size.0 * size.1 * count];
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
            picture.pixels.get(at).copied().unwrap_or_default().share()
        };
        let colours = |x: usize, y: usize| [0, 1, 2].map(|colour| value(x, y, from(colour)));
        let is_one = from(0) == from(1);
        let own = if is_one { 1 } else { 3 };
        let mut rows = pixels.chunks_exact_mut(size.0 * count);
        let mut put = |row: &[S]| {
            let to = rows.next().unwrap_or_default();
            for (pixel, made) in to.chunks_exact_mut(count).zip(row.chunks_exact(own)) {
                if let Some(places) = pixel.get_mut(from(0)..from(0) + own) {
                    places.copy_from_slice(made);
                }
            }
        };
        let mut stretch = (made != size).then(|| StretchRows::new(made, size, own, Filter::Lanczos));
        let mut line: Vec<S> = Vec::with_capacity(made.0 * own);
        let mut finished = |row: &[f32]| {
            line.clear();
            if is_one {
                line.extend(row.chunks_exact(3).map(|made| S::of_share(made.iter().sum::<f32>() / 3.0)));
            } else {
                line.extend(row.iter().map(|made| S::of_share(*made)));
            }
            match &mut stretch {
                Some(stretch) => stretch.push(&line, &mut put),
                None => put(&line),
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
    Ok(Picture { width: size.0, height: size.1, channels, pixels })
}

/// One time after the other, of these sizes, and the last time to `size`; by Lanczos if it has nothing to do. `told` is told how many
/// tiles of all are done.
pub(super) fn upscale_rounds<S: Sample>(
    engines: &Engines<'_>,
    (engine, tiling): (&Engine, Tiling),
    picture: &Picture<S>,
    (rounds, size): (&[(usize, usize)], (usize, usize)),
    told: &mut dyn FnMut(usize, usize),
) -> Result<Picture<S>> {
    let parts = if picture.channels == Channels::Rgba { 2 } else { 1 };
    let tiles = |round: &(usize, usize)| parts * tiling.count(round.0, round.1);
    let all = rounds.iter().map(tiles).sum();
    let (mut made, mut before): (Option<Picture<S>>, usize) = (None, 0);
    for (number, round) in rounds.iter().enumerate() {
        let to = rounds.get(number + 1).copied().unwrap_or(size);
        let of = made.as_ref().unwrap_or(picture);
        let mut tell = |done: usize, _: usize| told(before + done, all);
        made = Some(upscale_to(engines, (engine, tiling), of, to, &mut tell)?);
        before += tiles(round);
    }
    let (width, height) = size;
    made.map_or_else(|| Ok(picture.resized(width, height, Filter::Lanczos)?), Ok)
}

/// An image once over, or as large as is wanted.
pub(super) fn upscale_image(
    engines: &Engines<'_>,
    (engine, tiling): (&Engine, Tiling),
    image: &Image,
    wanted: Option<(usize, usize)>,
    told: &mut dyn FnMut(usize, usize),
) -> Result<Image> {
    let from = (image.width, image.height);
    let by = engine.scale();
    let size = wanted.unwrap_or((from.0.saturating_mul(by), from.1.saturating_mul(by)));
    check_size(engine, from, size)?;
    let rounds = if wanted.is_some() { upscaler_rounds(from, size, by, from == size) } else { vec![from] };
    // The picture itself, those on the way, and the result.
    let areas = rounds.iter().chain([&size]).map(|(wide, high)| wide.saturating_mul(*high));
    let bytes = areas.sum::<usize>().saturating_mul(image.channels);
    let _room = engines.job.reserve(bytes as u64, engine.plugin())?;
    let (width, height) = (image.width as u32, image.height as u32);
    let picture = Picture::from_raw(image.pixels.to_vec(), width, height, image.channels as u32)?;
    let made = upscale_rounds(engines, (engine, tiling), &picture, (&rounds, size), told)?;
    let Picture { width, height, channels, pixels } = made;
    Ok(Image { width, height, channels: channels.count(), pixels: Arc::new(pixels) })
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
    let pixels = (0..3 * plane).map(|at| u8::of_share(value(at))).collect();
    let image = Image { width, height, channels: 3, pixels: Arc::new(pixels) };
    let Content::Image(made) = engines.run_content(engine, &Content::Image(image))? else {
        return Err(Error::internal("no image where one was"));
    };
    let plane = made.width * made.height;
    let value = |at: usize| made.pixels.get(at % plane * 3 + at / plane).copied().unwrap_or_default().share();
    Ok(Tensor::new((0..3 * plane).map(value).collect(), [1, 3, made.height, made.width])?)
}

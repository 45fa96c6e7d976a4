//! A picture made larger and drawn anew in tiles: `img2img`'s `sd_upscale`, settled. A1111's script of that name
//! (`scripts/sd_upscale.py`), and the extension "Ultimate SD upscale" (`scripts/ultimate-upscale.py`).

use std::collections::BTreeSet;
use std::sync::Arc;

use latentd_client::protocol::{Img2ImgParams, RedrawMode, SdUpscaleParams, SeamFixMode, Txt2ImgParams};
use latentd_models::image::grid::Grid;
use latentd_models::image::{
    Filter, LONGEST_SIDE, MOST_PIXELS, Picture, Redraw, RedrawOrder, RedrawPart, Resize, SeamFix,
};
use latentd_models::prompt::Wording;

use super::names;
use super::plugins::Asking;
use super::studio::Studio;
use super::task::Watch;
use super::upscale::{By, Found, filled, find};
use crate::error::{Error, Result};
use crate::plugins::{Alone, Engine, Kind};

/// How, and how far.
pub(super) struct SdUpscale {
    params: Box<SdUpscaleParams>,
    by: Upscaler,
    /// What each tile is told, row by row; the request's prompt where there is none.
    prompts: Vec<Option<String>>,
    /// The engine that it needs, until it is taken.
    engine: Option<Engine>,
    tile: (usize, usize),
    /// `(width, height)` of the whole.
    pub finished: (usize, usize),
    /// Of what is drawn, in its order, with the strength where that is another than the request's.
    pub drawn: Vec<((usize, usize), Option<f64>)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Upscaler {
    None,
    Filter(Filter),
    Engine,
}

/// What is drawn at once.
pub(super) struct Part<'a> {
    /// `(width, height)` at which it is.
    pub size: (usize, usize),
    /// Pixels around its mask, and how softly that ends.
    pub padding: usize,
    pub blur: f64,
    /// The request's if `None`.
    pub strength: Option<f64>,
    /// Likewise.
    pub prompt: Option<&'a str>,
    /// What its seed has more than the picture's.
    pub more: u64,
}

/// Who draws.
pub(super) trait DrawsParts {
    /// What becomes of a picture, or, if there is a mask, of that where it is white.
    fn part(&mut self, picture: &Picture, mask: Option<&Picture>, part: &Part<'_>) -> Result<Picture>;
}

impl SdUpscale {
    /// Settles all but the sizes.
    pub(super) fn resolve(
        begun: &Img2ImgParams,
        (drawing, is_looped): (&Txt2ImgParams, bool),
        (studio, watch): (&Arc<Studio>, &dyn Watch),
    ) -> Result<Option<Self>> {
        let Some(params) = begun.sd_upscale.clone() else { return Ok(None) };
        let (batch, pictures) = (drawing.batch_size, begun.init_images.len());
        let refused = |text: String| Err(Error::invalid(text));
        if batch != 1 {
            return refused(format!(
                "batch_size: sd_upscale draws one tile after the other; set it to 1, not {batch}, and n_iter to {batch}"
            ));
        }
        if pictures > 1 {
            return refused(format!(
                "init_images: sd_upscale begins with one picture, not {pictures}; give one"
            ));
        }
        let without = [
            ("mask", begun.mask.is_some()),
            ("loopback", is_looped),
            ("regions", !drawing.regions.is_empty()),
        ];
        if let Some((field, _)) = without.into_iter().find(|(_, is_given)| *is_given) {
            return refused(format!(
                "{field}: sd_upscale draws all of a picture, in tiles; leave one of both out"
            ));
        }
        let prompts = [("prompt", &drawing.prompt), ("negative_prompt", &drawing.negative_prompt)];
        if let Some((field, _)) = prompts.iter().find(|(_, prompt)| prompt.texts().len() > 1) {
            return refused(format!(
                "{field}: sd_upscale draws from one prompt, not from a list; give one text"
            ));
        }
        let has_seams = params.seams != SeamFixMode::None;
        if has_seams && params.redraw == RedrawMode::Grid {
            return refused(
                "sd_upscale.seams: tiles of a grid overlap; set redraw to linear, chess or none".to_owned(),
            );
        }
        if !has_seams && params.redraw == RedrawMode::None {
            return refused(
                "sd_upscale.redraw: nothing is drawn; choose another, or seams, or use image.upscale"
                    .to_owned(),
            );
        }
        if params.redraw == RedrawMode::None && !params.prompts.is_empty() {
            return refused(
                "sd_upscale.prompts: no tiles are drawn; choose another redraw, or leave them out".to_owned(),
            );
        }
        let prompts = params.prompts.iter().enumerate().map(own_prompt).collect::<Result<_>>()?;
        let asking = Asking::new(watch, &studio.device.memory, studio, names::noise_source(drawing.rng));
        let asking = asking.with_versions(drawing.plugin_versions.clone());
        let (by, engine) = match find("sd_upscale.upscaler", &params.upscaler, (studio, &asking))? {
            None => (Upscaler::None, None),
            Some(Found::Filter(filter)) => (Upscaler::Filter(filter), None),
            Some(Found::Engine(engine)) => (Upscaler::Engine, Some(*engine)),
        };
        Ok(Some(Self { params, by, prompts, engine, tile: (0, 0), finished: (0, 0), drawn: vec![] }))
    }

    /// The same for a picture of a size, in tiles of another.
    pub(super) fn planned(mut self, picture: (usize, usize), tile: (usize, usize)) -> Result<Self> {
        self.tile = tile;
        let scale = self.params.scale_factor;
        let up = |side: usize| ((side as f64 * scale).ceil() as usize).next_multiple_of(64);
        self.finished = match self.params.redraw {
            RedrawMode::Grid => self.grid_scale().filled(picture),
            _ => (up(picture.0), up(picture.1)),
        };
        let possible = |(wide, high): (usize, usize)| {
            wide > 0 && high > 0 && wide.max(high) <= LONGEST_SIDE && wide.saturating_mul(high) <= MOST_PIXELS
        };
        let mut at = picture;
        for resize in self.ways(picture) {
            let by = self.engine.as_ref().map_or(1, Engine::scale);
            let rounds = resize.rounds(at, by).into_iter().map(|(wide, high)| (wide * by, high * by));
            if let Some((wide, high)) = rounds.chain([resize.filled(at)]).find(|size| !possible(*size)) {
                let ((width, height), name) = (picture, &self.params.upscaler);
                return Err(Error::invalid(format!(
                    "sd_upscale.scale_factor: '{name}' would make {width}x{height} into {wide}x{high}; sides of 1 to {LONGEST_SIDE} \
                     and {MOST_PIXELS} pixels are possible: give another, or another picture"
                )));
            }
            at = resize.filled(at);
        }
        let counts = if self.params.redraw == RedrawMode::Grid {
            Grid::new(self.finished, tile, self.params.overlap as usize)?.counts()
        } else {
            self.whole().counts()
        };
        let (given, tiles) = (self.prompts.len(), counts.0.saturating_mul(counts.1));
        if given > 0 && given != tiles {
            return Err(Error::invalid(format!(
                "sd_upscale.prompts: {given} are given, and there are {tiles} tiles, {} across and {} down; give one for each, row by \
                 row, or none",
                counts.0, counts.1
            )));
        }
        self.drawn = if self.params.redraw == RedrawMode::Grid {
            let grid = Grid::new(self.finished, tile, self.params.overlap as usize)?;
            grid.regions().map(|region| ((region.width(), region.height()), None)).collect()
        } else {
            self.parts()?.into_iter().map(|own| (own.part.drawn, own.strength)).collect()
        };
        Ok(self)
    }

    /// The engine that it needs, for those who are asked while it is drawn.
    pub(super) fn take_engine(&mut self) -> Option<Engine> {
        self.engine.take()
    }

    /// What tiles are told beside the request's prompt, each text once.
    pub(super) fn prompts(&self) -> BTreeSet<&str> {
        self.prompts.iter().flatten().map(String::as_str).collect()
    }

    fn whole(&self) -> Redraw {
        Redraw { size: self.finished, tile: self.tile }
    }

    /// The largest that is drawn at once.
    pub(super) fn largest(&self) -> (usize, usize) {
        let sizes = self.drawn.iter().map(|(size, _)| *size);
        sizes.max_by_key(|(width, height)| width * height).unwrap_or(self.tile)
    }

    /// How far a grid's picture is brought: as it is, but for whole eighths, without an upscaler.
    fn grid_scale(&self) -> Resize {
        Resize::By(if self.by == Upscaler::None { 1.0 } else { self.params.scale_factor })
    }

    /// How an upscaler goes over a picture, one time after the other.
    fn ways(&self, (width, height): (usize, usize)) -> Vec<Resize> {
        match (self.params.redraw, self.by) {
            (RedrawMode::Grid, _) => vec![self.grid_scale()],
            (_, Upscaler::None) => vec![],
            _ => {
                let (wide, high) = self.finished;
                let whole = wide.max(high).div_ceil(width.max(height).max(1));
                factors(whole).into_iter().map(|factor| Resize::By(factor as f64)).collect()
            }
        }
    }

    /// Tiles and seams.
    fn parts(&self) -> Result<Vec<Own>> {
        let SdUpscaleParams { redraw, padding, mask_blur, seams, seams_width, seams_padding, .. } =
            *self.params;
        let whole = self.whole();
        let order = match redraw {
            RedrawMode::Linear => Some(RedrawOrder::Linear),
            RedrawMode::Chess => Some(RedrawOrder::Chess),
            RedrawMode::Grid | RedrawMode::None => None,
        };
        let tiles = order.map(|order| whole.tiles(order, padding as usize)).transpose()?.unwrap_or_default();
        let (fix, blur) = match seams {
            SeamFixMode::None => (None, 0.0),
            SeamFixMode::Bands => (Some(SeamFix::Bands { width: seams_width as usize }), 0.0),
            SeamFixMode::HalfTile => (Some(SeamFix::HalfTile), self.params.seams_mask_blur),
            SeamFixMode::HalfTileIntersections => {
                (Some(SeamFix::HalfTileIntersections), self.params.seams_mask_blur)
            }
        };
        let over = fix.map(|fix| whole.seams(fix, seams_padding as usize)).transpose()?.unwrap_or_default();
        let tile = |part| Own { strength: None, blur: mask_blur, tile: Some(whole.place(&part)), part };
        let tiles = tiles.into_iter().map(tile);
        let strength = Some(self.params.seams_denoise);
        let over = over.into_iter().map(|part| Own { strength, blur, tile: None, part });
        Ok(tiles.chain(over).collect())
    }

    /// Steps that making it larger takes: tiles of an engine, and one for a filter.
    pub(super) fn steps(&self, picture: (usize, usize), engines: &[Engine]) -> Result<usize> {
        let (mut at, mut steps) = (picture, 0);
        let engine = self
            .engine_of(engines)?
            .map(|engine| Ok::<_, Error>((engine.scale(), engine.tiling(None, None)?)));
        let engine = engine.transpose()?;
        for resize in self.ways(picture) {
            if !self.is_nothing(resize, at) {
                let tiles = engine.map_or(1, |(by, tiling)| {
                    resize.rounds(at, by).iter().map(|(width, height)| tiling.count(*width, *height)).sum()
                });
                steps += tiles.max(1);
            }
            at = resize.filled(at);
        }
        Ok(steps)
    }

    /// Whether a picture of this size stays as it is.
    fn is_nothing(&self, resize: Resize, size: (usize, usize)) -> bool {
        self.by == Upscaler::None && resize.filled(size) == size
    }

    /// Bytes that making it larger takes, the pictures themselves included.
    pub(super) fn bytes(&self, (width, height): (usize, usize), engines: &[Engine]) -> Result<u64> {
        const COLOURS: u64 = 3;
        let area = |(wide, high): (usize, usize)| COLOURS * wide as u64 * high as u64;
        let (mut at, mut most) = ((width, height), area((width, height)));
        for resize in self.ways(at) {
            let to = resize.filled(at);
            let way = match self.engine_of(engines)? {
                None => area(resize.filtered(at)),
                Some(engine) => {
                    let tiling = engine.tiling(None, None)?;
                    let rounds = resize.rounds(at, engine.scale());
                    rounds
                        .iter()
                        .map(|round| area(*round) + Engine::bytes_on_the_way::<u8>(tiling, *round, to))
                        .sum()
                }
            };
            most = most.max(area(at) + way + area(to));
            at = to;
        }
        Ok(most + 2 * area(self.finished))
    }

    fn engine_of<'a>(&self, engines: &'a [Engine]) -> Result<Option<&'a Engine>> {
        if self.by != Upscaler::Engine {
            return Ok(None);
        }
        let is_it = |engine: &&Engine| engine.kind == Kind::Upscaler && engine.entry == self.params.upscaler;
        let engine = engines.iter().find(is_it);
        engine.map(Some).ok_or_else(|| Error::internal("an upscaler that was not planned"))
    }

    /// The picture made larger. `told` is told how many steps are done.
    pub(super) fn enlarged(
        &self,
        picture: &Picture,
        (alone, engines): (&Alone<'_>, &[Engine]),
        told: &mut dyn FnMut(usize),
    ) -> Result<Picture> {
        let by = match (self.by, self.engine_of(engines)?) {
            (_, Some(engine)) => By::Engine(engine, engine.tiling(None, None)?),
            (Upscaler::Filter(filter), None) => By::Filter(filter),
            _ => By::Filter(Filter::Lanczos),
        };
        let mut made = picture.clone();
        let mut before = 0;
        for resize in self.ways((picture.width, picture.height)) {
            if self.is_nothing(resize, (made.width, made.height)) {
                continue;
            }
            let mut last = before;
            let mut tell = |done: usize| {
                last = before + done;
                told(last);
            };
            made = filled(resize, by, alone, &made, &mut tell)?;
            before = last;
        }
        let (width, height) = self.finished;
        Ok(if (made.width, made.height) == (width, height) {
            made
        } else {
            made.resized(width, height, Filter::Lanczos)?
        })
    }

    /// The enlarged picture, RGB, drawn anew.
    pub(super) fn drawn_anew(&self, picture: &Picture, by: &mut impl DrawsParts) -> Result<Picture> {
        if self.params.redraw == RedrawMode::Grid {
            let grid = Grid::new(self.finished, self.tile, self.params.overlap as usize)?;
            let tiles = grid.regions().enumerate().map(|(number, region)| {
                let size = (region.width(), region.height());
                let (prompt, more) = (self.prompt_of(Some(number)), number as u64);
                let part = Part { size, padding: 0, blur: 0.0, strength: None, prompt, more };
                by.part(&picture.cropped(region)?, None, &part)
            });
            return Ok(grid.combined(&tiles.collect::<Result<Vec<_>>>()?)?);
        }
        let mut made = picture.clone();
        for Own { part, strength, blur, tile } in self.parts()? {
            let mask = part.mask((made.width, made.height))?;
            let prompt = self.prompt_of(tile);
            let part = Part { size: part.drawn, padding: part.padding, blur, strength, prompt, more: 0 };
            made = by.part(&made, Some(&mask), &part)?;
        }
        Ok(made)
    }

    fn prompt_of(&self, tile: Option<usize>) -> Option<&str> {
        self.prompts.get(tile?)?.as_deref()
    }
}

/// A tile or a seam.
struct Own {
    part: RedrawPart,
    strength: Option<f64>,
    /// Of its mask.
    blur: f64,
    /// Which tile it is, counted row by row.
    tile: Option<usize>,
}

/// What a tile is told, if it is another than the request's.
fn own_prompt((number, given): (usize, &String)) -> Result<Option<String>> {
    let Wording { text, networks, .. } = Wording::of_prompt(given);
    match networks.first() {
        Some(network) => Err(Error::invalid(format!(
            "sd_upscale.prompts[{number}]: names {}, and networks change all tiles; name it in prompt",
            network.written
        ))),
        None if text.trim().is_empty() => Ok(None),
        None => Ok(Some(text)),
    }
}

/// The factors that "Ultimate SD upscale" goes by.
fn factors(scale: usize) -> Vec<usize> {
    let factor = |number: usize| match number {
        1 => 2,
        _ if number.is_multiple_of(4) => 4,
        _ if number.is_multiple_of(3) => 3,
        _ if number.is_multiple_of(2) => 2,
        _ => 0,
    };
    let scale = (scale..scale + 3).find(|scale| factor(*scale) > 0).unwrap_or(scale);
    let (mut all, mut at) = (vec![], 1);
    while at < scale {
        let next = factor(scale / at);
        // There it fails: what is left is Lanczos' here.
        if next == 0 {
            break;
        }
        all.push(next);
        at *= next;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_those_of_the_extension() {
        for (scale, wanted) in [
            (1, &[][..]),
            (2, &[2]),
            (3, &[3]),
            (4, &[4]),
            (5, &[3, 2]),
            (6, &[3, 2]),
            (7, &[4, 2]),
            (8, &[4, 2]),
            (10, &[2]),
            (16, &[4, 4]),
        ] {
            assert_eq!(factors(scale), wanted, "{scale}");
        }
    }
}

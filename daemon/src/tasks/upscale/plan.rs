//! By what pictures are made larger, how far, and what that takes.

use std::sync::Arc;

use latentd_client::protocol::UpscaleParams;
use latentd_models::image::{
    Channels, Filter, LONGEST_SIDE, MOST_PIXELS, PictureHeader, Resize, Tiling, Upscaler as Filters,
};

use super::super::given::Given;
use super::super::notices::Notices;
use super::super::plugins::Asking;
use super::super::restorers;
use super::super::studio::Studio;
use crate::error::{Class, Error, Result};
use crate::plugins::{Engine, Job, Kind};
use crate::schema::shorten;

/// A1111's name for none.
pub(super) const NONE: &str = "None";
/// Those that need no plugin.
const FILTERS: [Filter; 2] = [Filter::Lanczos, Filter::Nearest];
/// How many times as large if nothing is said: A1111's.
const USUAL_SCALE: f64 = 2.0;
/// What a picture is resized with takes so much beside.
const BETWEEN: u64 = 8 << 20;

/// What is done to each picture.
pub(super) struct Plan {
    engines: Vec<Engine>,
    pub resize: Resize,
    pub first: Option<Named>,
    pub second: Option<(Named, f64)>,
    pub restorers: Vec<Restorer>,
    /// Tiles as they are asked for.
    pub tile: Option<u32>,
    pub overlap: Option<u32>,
}

/// An upscaler by its name.
pub(super) struct Named {
    pub name: String,
    pub by: Upscaler,
}

/// What makes a picture larger.
pub(super) enum Upscaler {
    Filter(Filter),
    /// One of the engines, by its place, in these tiles.
    Engine(usize, Tiling),
}

/// What restores faces.
pub(super) struct Restorer {
    /// A1111's name.
    pub name: &'static str,
    /// Its place among the engines.
    engine: usize,
    pub visibility: f64,
    /// How close it stays to the picture, of one that is told so.
    pub weight: Option<f64>,
}

/// What is known of a picture before it is decoded.
pub(super) struct Shape {
    /// (width, height), as it is seen.
    pub size: (usize, usize),
    channels: Channels,
    /// Whether a channel has 16 bits.
    pub deep: bool,
}

/// Bytes that a picture takes.
pub(super) struct Needed {
    /// While it is worked on, without what its engine takes for tiles.
    pub held: u64,
    /// At most, all in all.
    pub most: u64,
}

impl Shape {
    pub(super) fn of(given: &Given, field: &str) -> Result<Self> {
        let PictureHeader { width, height, channels, .. } = given.header(field)?;
        let (width, height) = (width as usize, height as usize);
        let size = if given.orientation(field)?.is_transposed() { (height, width) } else { (width, height) };
        Ok(Self { size, channels, deep: given.bits(field)? == 16 })
    }

    /// Bytes of such a picture of another size.
    fn bytes(&self, (width, height): (usize, usize)) -> u64 {
        let each = self.channels.count() * if self.deep { 2 } else { 1 };
        (width as u64).saturating_mul(height as u64).saturating_mul(each as u64)
    }
}

impl Plan {
    pub(super) fn resolve(
        params: &UpscaleParams,
        studio: &Arc<Studio>,
        asking: &Asking<'_>,
        notices: &mut Notices,
    ) -> Result<Self> {
        let resize = resize(params)?;
        let mut engines = vec![];
        let mut named = |field: &str, name: &str| -> Result<Option<Named>> {
            if name == NONE {
                return Ok(None);
            }
            let by = if let Some(filter) = FILTERS.iter().find(|filter| filter.name() == name) {
                Upscaler::Filter(*filter)
            } else {
                let place = place(&mut engines, name, field, (studio, asking))?;
                let engine: &Engine = &engines[place];
                let given = |side: Option<u32>| side.map(|side| side as usize);
                Upscaler::Engine(place, engine.tiling(given(params.tile), given(params.overlap))?)
            };
            Ok(Some(Named { name: name.to_owned(), by }))
        };
        let first = named("upscaler_1", &params.upscaler_1)?;
        let second = named("upscaler_2", &params.upscaler_2)?;
        let share = params.extras_upscaler_2_visibility;
        let second = match second {
            Some(second) if first.is_none() => {
                let text =
                    format!("upscaler_1: is None, so upscaler_2 does nothing; name '{}' there", second.name);
                return Err(Error::invalid(text));
            }
            Some(_) if share == 0.0 => {
                let text = "upscaler_2: nothing is seen of it; raise extras_upscaler_2_visibility from 0";
                notices.not_applied(Class::InvalidParams, text.to_owned())?;
                None
            }
            second => second.map(|second| (second, share)),
        };
        let mut restoring = vec![];
        for (field, name, visibility, weight) in [
            ("gfpgan_visibility", restorers::GFPGAN, params.gfpgan_visibility, None),
            (
                "codeformer_visibility",
                restorers::CODEFORMER,
                params.codeformer_visibility,
                Some(params.codeformer_weight),
            ),
        ] {
            if visibility > 0.0 {
                engines.push(restorers::find(name, field, (studio, asking))?);
                let engine = engines.len() - 1;
                restoring.push(Restorer { name, engine, visibility, weight });
            }
        }
        if first.is_none() && restoring.is_empty() {
            let mut known: Vec<String> = FILTERS.iter().map(|filter| filter.name().to_owned()).collect();
            known.extend(asking.engine_names(Kind::Upscaler));
            return Err(Error::invalid(format!(
                "upscaler_1: nothing is asked for; name an upscaler ({}), or give gfpgan_visibility or codeformer_visibility",
                shorten(&known.join(", "))
            )));
        }
        let is_tiled = [first.as_ref(), second.as_ref().map(|(named, _)| named)]
            .into_iter()
            .flatten()
            .any(|named| matches!(named.by, Upscaler::Engine(..)));
        for (field, given) in [("tile", params.tile), ("overlap", params.overlap)] {
            if given.is_some() && !is_tiled {
                let text = format!("{field}: no upscaler here works in tiles; leave it out");
                notices.not_applied(Class::InvalidParams, text)?;
            }
        }
        studio.plugins.plan_engines(&[], &[], asking, &mut engines)?;
        let (tile, overlap) = if is_tiled { (params.tile, params.overlap) } else { (None, None) };
        Ok(Self { engines, resize, first, second, restorers: restoring, tile, overlap })
    }

    pub(super) fn engines(&self) -> &[Engine] {
        &self.engines
    }

    /// The engine of a restorer.
    pub(super) fn restores(&self, restorer: &Restorer) -> Result<&Engine> {
        self.engine(restorer.engine)
    }

    /// The engine in this place.
    pub(super) fn engine(&self, place: usize) -> Result<&Engine> {
        self.engines.get(place).ok_or_else(|| Error::internal("an engine that was not planned"))
    }

    /// Bytes of all networks, and of what is beside them: engines tell any number.
    pub(super) fn planned_bytes(&self) -> u64 {
        self.engines.iter().map(Engine::planned_bytes).fold(0, u64::saturating_add)
    }

    fn upscalers(&self) -> impl Iterator<Item = &Named> {
        self.first.iter().chain(self.second.iter().map(|(named, _)| named))
    }

    /// The size of what is made of a picture.
    pub(super) fn result(&self, shape: &Shape) -> (usize, usize) {
        if self.first.is_some() { self.resize.result(shape.size) } else { shape.size }
    }

    /// Bytes of its pixels.
    pub(super) fn result_bytes(&self, shape: &Shape) -> u64 {
        shape.bytes(self.result(shape))
    }

    /// Refuses what cannot be made of a picture.
    pub(super) fn check(&self, shape: &Shape, field: &str) -> Result<()> {
        if self.first.is_none() {
            return Ok(());
        }
        let (width, height) = shape.size;
        let possible = |(wide, high): (usize, usize)| {
            wide.max(high) <= LONGEST_SIDE && wide.saturating_mul(high) <= MOST_PIXELS
        };
        let (wide, high) = self.resize.filled(shape.size);
        if wide == 0 || high == 0 {
            let least = 8.0 / width.min(height) as f64;
            return Err(Error::invalid(format!(
                "scale: {field} of {width}x{height} would have no pixels, for sides come down to what 8 divides; give at least \
                 {least:.3}, or width and height"
            )));
        }
        if !possible((wide, high)) {
            return Err(Error::invalid(format!(
                "{}: {field} of {width}x{height} would become {wide}x{high}; sides of {LONGEST_SIDE} and {MOST_PIXELS} pixels are \
                 possible: give less, or a smaller picture",
                if matches!(self.resize, Resize::By(_)) { "scale" } else { "width" }
            )));
        }
        for named in self.upscalers() {
            let Upscaler::Engine(place, _) = named.by else { continue };
            let by = self.engine(place)?.scale();
            let rounds = self.resize.rounds(shape.size, by);
            let largest =
                rounds.last().map(|(wide, high)| (wide.saturating_mul(by), high.saturating_mul(by)));
            if let Some((wide, high)) = largest.filter(|size| !possible(*size)) {
                return Err(Error::invalid(format!(
                    "{field}: '{}' would make {width}x{height} into {wide}x{high} on the way; sides of {LONGEST_SIDE} and \
                     {MOST_PIXELS} pixels are possible: give a smaller picture, a smaller scale or another upscaler",
                    named.name
                )));
            }
        }
        Ok(())
    }

    /// Steps that a picture takes: tiles of its engines, and one for each of the rest.
    pub(super) fn steps(&self, shape: &Shape) -> u64 {
        let of = |named: &Named| match named.by {
            Upscaler::Filter(_) => 1,
            Upscaler::Engine(place, tiling) => {
                let by = self.engines.get(place).map_or(1, Engine::scale);
                let rounds = self.resize.rounds(shape.size, by);
                let tiles: usize = rounds.iter().map(|(width, height)| tiling.count(*width, *height)).sum();
                let parts = if shape.channels == Channels::Rgba { 2 } else { 1 };
                (tiles * parts).max(1) as u64
            }
        };
        self.upscalers().map(of).sum::<u64>() + self.restorers.len() as u64
    }

    /// What a picture takes.
    pub(super) fn bytes(&self, shape: &Shape) -> Needed {
        let (given, filled) = (shape.bytes(shape.size), shape.bytes(self.resize.filled(shape.size)));
        let result = self.result_bytes(shape);
        let (mut held, mut on_the_way) = (given, 0);
        for (number, named) in self.upscalers().enumerate() {
            let before = if number == 0 { given } else { given + result };
            let (most, beside) = self.bytes_of(named, shape);
            held = held.max(before + most + filled);
            on_the_way = on_the_way.max(beside);
        }
        if !self.restorers.is_empty() {
            // As it was, in 8 bits, as the engine is given it, what that makes, and both together.
            held = held.max(6 * result.max(given));
            on_the_way = on_the_way.max(Engine::bytes_to_restore(self.result(shape)));
        }
        // Its file, and before that its numbers as the file has them.
        let packed = if shape.deep { 3 * result } else { 2 * result };
        let held = held.max(packed);
        Needed { held, most: held.saturating_add(on_the_way) }
    }

    /// What an upscaler takes beside what it is given and the filled size: pictures on the way, and what its tiles take.
    fn bytes_of(&self, named: &Named, shape: &Shape) -> (u64, u64) {
        match named.by {
            Upscaler::Filter(_) => {
                let copies = if shape.channels == Channels::Rgba { 2 } else { 1 };
                (copies * shape.bytes(self.resize.filtered(shape.size)) + BETWEEN, 0)
            }
            Upscaler::Engine(place, tiling) => {
                let by = self.engines.get(place).map_or(1, Engine::scale);
                let rounds = self.resize.rounds(shape.size, by);
                let filled = self.resize.filled(shape.size);
                let way = |round: &(usize, usize)| {
                    if shape.deep {
                        Engine::bytes_on_the_way::<u16>(tiling, *round, filled)
                    } else {
                        Engine::bytes_on_the_way::<u8>(tiling, *round, filled)
                    }
                };
                let between =
                    rounds.iter().skip(1).map(|round| shape.bytes(*round)).max().unwrap_or_default();
                (2 * between + BETWEEN, rounds.iter().map(way).max().unwrap_or_default())
            }
        }
    }
}

/// How far.
fn resize(params: &UpscaleParams) -> Result<Resize> {
    let missing = |field: &str, given: &str| {
        Err(Error::invalid(format!("{field}: is missing beside {given}; give both, or scale alone")))
    };
    match (params.scale, params.width, params.height) {
        (Some(_), Some(_), _) | (Some(_), _, Some(_)) => {
            Err(Error::invalid("scale: width and height are given too; give scale, or these"))
        }
        (_, Some(_), None) => missing("height", "width"),
        (_, None, Some(_)) => missing("width", "height"),
        (None, Some(width), Some(height)) => {
            Ok(Resize::To { width: width as usize, height: height as usize, crop: params.crop })
        }
        (scale, None, None) => Ok(Resize::By(scale.unwrap_or(USUAL_SCALE))),
    }
}

/// An upscaler by its name; `None` if it is A1111's "None".
pub(in crate::tasks) fn find(
    field: &str,
    name: &str,
    (studio, asking): (&Arc<Studio>, &Asking<'_>),
) -> Result<Option<Found>> {
    if name == NONE {
        return Ok(None);
    }
    if let Some(filter) = FILTERS.iter().find(|filter| filter.name() == name) {
        return Ok(Some(Found::Filter(*filter)));
    }
    let mut engines = vec![];
    place(&mut engines, name, field, (studio, asking))?;
    Ok(engines.pop().map(|engine| Found::Engine(Box::new(engine))))
}

/// An upscaler.
pub(in crate::tasks) enum Found {
    Filter(Filter),
    Engine(Box<Engine>),
}

/// The place of an upscaler among the engines of a job, found and described if it is not there yet.
fn place(
    engines: &mut Vec<Engine>,
    name: &str,
    field: &str,
    (studio, asking): (&Arc<Studio>, &Asking<'_>),
) -> Result<usize> {
    let kind = Kind::Upscaler;
    let is_it = |engine: &Engine| engine.kind == kind && engine.entry == name;
    if let Some(place) = engines.iter().position(is_it) {
        return Ok(place);
    }
    let beside: Vec<&str> = std::iter::once(NONE).chain(FILTERS.iter().map(Filters::name)).collect();
    engines.push(studio.plugins.engine(kind, name, (field, &beside), asking)?);
    Ok(engines.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_or_both_sides() {
        let of = |scale, width, height| {
            resize(&UpscaleParams { scale, width, height, ..UpscaleParams::default() })
        };
        assert_eq!(of(None, None, None), Ok(Resize::By(2.0)));
        assert_eq!(of(Some(4.0), None, None), Ok(Resize::By(4.0)));
        let size = Resize::To { width: 512, height: 256, crop: true };
        assert_eq!(of(None, Some(512), Some(256)), Ok(size));
        for (scale, width, height, words) in [
            (Some(4.0), Some(1), None, "give scale, or these"),
            (None, Some(1), None, "height: is missing"),
            (None, None, Some(1), "width: is missing"),
        ] {
            let error = of(scale, width, height).expect_err("refused");
            assert!(error.text.contains(words), "{error}");
        }
    }
}

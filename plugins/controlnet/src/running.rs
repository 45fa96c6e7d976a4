//! An instance: the units of a drawing, the hints that were made so far, and what is added at each step.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;

use latentd_plugin_api::{
    Border, Call, ControlResiduals, Controlling, Crop, Error, File, Filter, GivenImage, Image, Job, Kept,
    Mask, Network as Open, Node, Ops, PassBegin, PassKind, Passing, Plugin, Reduction, Region, Residual,
    Result, Role, Tensor,
};

use crate::hints::{Canvas, Map, Source};
use crate::network::{FEATURES, HINT, Kind, Network, RESIDUALS};
use crate::plan::{Planned, Request};
use crate::preprocessing::{image, picture};
use crate::preprocessors::Picture;
use crate::preprocessors::hint::ResizeMode;
use crate::schedule::Progress;

/// The plugin, while something is drawn.
pub struct ControlNet {
    pub units: Vec<Planned>,
    base: (usize, usize),
    pub has_hires: bool,
    progress: Progress,
    /// What the pass that is drawn begins with, by picture.
    begun: RefCell<Vec<Begun>>,
    /// Which of the maps a unit has for a picture of that pass.
    known: RefCell<Vec<(Key, usize)>>,
    /// By numbers that others know them by.
    maps: RefCell<BTreeMap<usize, Mapped>>,
    hints: RefCell<Vec<Hinted>>,
    open: RefCell<Vec<Opened>>,
    networks: OnceCell<Vec<Network>>,
}

/// What a picture is drawn from.
struct Begun {
    picture: usize,
    image: Picture,
    mask: Option<Vec<u8>>,
    crop: Option<Crop>,
}

/// Who looks for a hint.
#[derive(Clone, Copy, PartialEq)]
struct Key {
    unit: usize,
    /// Of the job.
    picture: usize,
    canvas: (usize, usize),
}

/// A unit's hint over the canvas, which pictures share that look alike.
struct Mapped {
    unit: usize,
    source: Source,
    canvas: (usize, usize),
    map: Map,
}

/// A network that is ready to run.
struct Opened {
    file: File,
    network: Open,
    /// Of the model over whose UNet it is built, if over any.
    turn: Option<u32>,
}

/// What a network made of a part of a hint: a ControlNet's one tensor, an adapter's features.
struct Hinted {
    /// Which of the maps.
    map: usize,
    region: Region,
    made: Vec<Kept>,
}

impl Plugin for ControlNet {
    fn new(job: &Job<'_>) -> Result<Self> {
        let units = Planned::all(job)?;
        let request = if units.is_empty() { None } else { Some(Request::of(job)?) };
        Ok(Self {
            units,
            base: request.as_ref().map_or((0, 0), Request::size),
            has_hires: request.is_some_and(|request| request.enable_hr),
            progress: Progress::default(),
            begun: RefCell::default(),
            known: RefCell::default(),
            maps: RefCell::default(),
            hints: RefCell::default(),
            open: RefCell::default(),
            networks: OnceCell::new(),
        })
    }
}

impl PassBegin for ControlNet {
    fn pass_begin(&self, stage: &Passing<'_>) -> Result<()> {
        let begun = stage.pictures.iter().filter_map(|begun| {
            // Not what was filled in where it is drawn anew.
            let image = begun.unfilled.as_ref().or(begun.image.as_ref())?;
            let made = || {
                let crop = (begun.crop.size != begun.crop.whole).then_some(begun.crop);
                let mask = begun.mask.as_ref().map(grey).transpose()?;
                Ok(Begun { picture: begun.index, image: picture(image)?, mask, crop })
            };
            Some(made())
        });
        let begun = begun.collect::<Result<Vec<_>>>()?;
        // A second pass of a hires fix has what the first one had.
        if !begun.is_empty() || stage.pass.kind == PassKind::Base {
            *self.begun.borrow_mut() = begun;
            self.known.borrow_mut().clear();
            self.forget();
        }
        Ok(())
    }
}

impl ControlResiduals for ControlNet {
    fn control_residuals(&self, stage: &Controlling<'_>) -> Result<()> {
        let (call, evaluation) = (&stage.call, &stage.evaluation);
        let share = self.progress.share(evaluation);
        for (index, planned) in self.units.iter().enumerate() {
            let unit = &planned.unit;
            if !unit.is_in(evaluation.pass, self.has_hires) || !unit.is_at(share) {
                continue;
            }
            let network = self.network(call, index)?;
            if network.ip_adapter.is_some() {
                continue;
            }
            let mut groups: Vec<((usize, Region), Vec<u32>)> = vec![];
            for (number, row) in (0..).zip(&evaluation.rows) {
                if unit.is_of_cond_alone(network.is_pooled) && row.role == Role::Uncond {
                    continue;
                }
                let region = row.region();
                let map = self.map(call, Key { unit: index, picture: row.image, canvas: region.canvas })?;
                match groups.iter_mut().find(|(own, _)| *own == (map, region)) {
                    Some((_, rows)) => rows.push(number),
                    None => groups.push(((map, region), vec![number])),
                }
            }
            for ((map, region), rows) in groups {
                self.add(stage, (index, map), region, &rows)?;
            }
        }
        Ok(())
    }
}

impl ControlNet {
    /// Drops what was made of pictures that are drawn from no more.
    fn forget(&self) {
        let mut maps = self.maps.borrow_mut();
        let has_own = |map: &Mapped| {
            self.units.get(map.unit).is_some_and(|planned| planned.unit.images().next().is_some())
        };
        maps.retain(|_, map| has_own(map));
        self.hints.borrow_mut().retain(|hinted| maps.contains_key(&hinted.map));
    }

    /// What the host says of a unit's network.
    pub fn network(&self, call: &Call<'_>, unit: usize) -> Result<&Network> {
        if self.networks.get().is_none() {
            let model = call.model()?;
            let all = self.units.iter().map(|planned| Network::of(call, planned.file, &model));
            self.networks.set(all.collect::<Result<_>>()?).ok();
        }
        let found = self.networks.get().and_then(|networks| networks.get(unit));
        found.ok_or_else(|| Error::failed("a unit without a network"))
    }

    /// Its network, ready to run: over the UNet whose turn it is, if it is built so.
    pub fn opened(&self, call: &Call<'_>, unit: usize) -> Result<Open> {
        let (file, on_base) = (self.planned(unit)?.file, self.network(call, unit)?.on_base);
        let turn = if on_base { Some(call.model()?.turn) } else { None };
        let mut open = self.open.borrow_mut();
        if let Some(place) = open.iter().position(|opened| opened.file == file) {
            if let Some(opened) = open.get(place).filter(|opened| opened.turn == turn) {
                return Ok(opened.network);
            }
            open.swap_remove(place).network.close(call)?;
        }
        let network = if on_base { call.open_network_on_base(file)? } else { call.open_network(file)? };
        open.push(Opened { file, network, turn });
        Ok(network)
    }

    /// What a unit's hint is made of for a picture.
    pub fn source(&self, call: &Call<'_>, planned: &Planned, index: usize) -> Result<Source> {
        let unit = &planned.unit;
        let begun = self.begun.borrow();
        let begun = begun.iter().find(|begun| begun.picture == index);
        if let Some(own) = unit.image(index) {
            let given = |image: GivenImage| image.image(call);
            return Ok(Source {
                picture: picture(&given(own)?)?,
                mask: unit.mask().map(|mask| grey(&given(mask)?)).transpose()?,
                mode: unit.resize_mode.0,
                crop: begun.and_then(|begun| begun.crop).filter(|_| unit.inpaint_crop_input_image),
            });
        }
        let begun = begun.ok_or_else(|| {
            Error::invalid(
                "image: there is none, and what is drawn here begins with none; give one to take a hint of",
            )
        })?;
        // What is drawn from is at the size of the pass already.
        Ok(Source {
            picture: begun.image.clone(),
            // To other modules a mask would be a drawing over the picture.
            mask: begun.mask.clone().filter(|_| planned.module.mask),
            mode: ResizeMode::Just,
            crop: None,
        })
    }

    /// A unit's hint for a picture, made unless it is there: which of the maps.
    fn map(&self, call: &Call<'_>, key: Key) -> Result<usize> {
        let known = self.known.borrow().iter().find(|(own, _)| *own == key).map(|(_, map)| *map);
        if let Some(map) = known {
            return Ok(map);
        }
        let Key { unit: index, picture, canvas } = key;
        let planned = self.planned(index)?;
        let source = self.source(call, planned, picture)?;
        let is_same = |made: &Mapped| made.unit == index && made.canvas == canvas && made.source == source;
        let made = self.maps.borrow().iter().find(|(_, made)| is_same(made)).map(|(number, _)| *number);
        let map = if let Some(made) = made { made } else { self.made(call, key, source)? };
        self.known.borrow_mut().push((key, map));
        Ok(map)
    }

    /// Makes a unit's hint.
    fn made(&self, call: &Call<'_>, key: Key, source: Source) -> Result<usize> {
        let Key { unit: index, picture, canvas } = key;
        let Planned { unit, module, settings, .. } = self.planned(index)?;
        let sizes = Canvas { size: canvas, base: self.base };
        let (shown, map) = source.clone().hint(module, settings, unit.pixel_perfect, sizes)?;
        if unit.save_detected_map {
            let of = unit.image(picture).is_none().then_some(picture);
            call.artifact(&format!("controlnet {index} {}", module.name), of, image(call, &shown)?)?;
        }
        let mut maps = self.maps.borrow_mut();
        let number = maps.last_key_value().map_or(0, |(last, _)| last + 1);
        maps.insert(number, Mapped { unit: index, source, canvas, map });
        Ok(number)
    }

    fn planned(&self, unit: usize) -> Result<&Planned> {
        self.units.get(unit).ok_or_else(|| Error::failed("no such unit"))
    }

    /// What a unit's network makes of a part of its hint: once for each.
    fn hinted<'a>(
        &self,
        call: &Call<'a>,
        (unit, map): (usize, usize),
        region: Region,
    ) -> Result<Vec<Tensor<'a>>> {
        let find = || {
            let hints = self.hints.borrow();
            let found = hints.iter().find(|hinted| hinted.map == map && hinted.region == region);
            found.map(|hinted| hinted.made.iter().map(|kept| kept.tensor(call)).collect::<Vec<_>>())
        };
        if let Some(made) = find() {
            return Ok(made);
        }
        let network = self.network(call, unit)?;
        let image = {
            let maps = self.maps.borrow();
            let Some(Mapped { map, .. }) = maps.get(&map) else {
                return Err(Error::failed("no hint was made"));
            };
            let at = (i64::from(region.at.0), i64::from(region.at.1));
            call.finished(map.tensor(call, network.colours, at, region.size)?)?
        };
        let file = self.planned(unit)?.file;
        let (part, count) = match network.kind {
            Kind::ControlNet => (HINT, 1),
            Kind::Adapter => (FEATURES, network.places.len()),
            Kind::IpAdapter => return Err(Error::failed("an IP-Adapter has no hint")),
        };
        // Jobs within this one, and the next one with the same picture, find it there.
        let (identity, digest) = (file.info(call)?.identity, call.digest(image)?);
        let key = |index: usize| [part.as_bytes(), identity, &digest, &index.to_be_bytes()].concat();
        let cached = (0..count).map(|index| call.cached_tensor(&key(index)));
        let made: Vec<Tensor<'_>> = if let Some(cached) = cached.collect::<Result<Option<_>>>()? {
            cached
        } else {
            let outputs = self.opened(call, unit)?.run(call, part, &[("image", image.into())])?;
            let made: Vec<_> = outputs.iter().map(|(_, tensor)| tensor).collect();
            for (index, tensor) in made.iter().enumerate() {
                call.cache(&key(index), *tensor)?;
            }
            made
        };
        let made = made.iter().map(Tensor::keep).collect::<Result<Vec<_>>>()?;
        self.hints.borrow_mut().push(Hinted { map, region, made });
        find().ok_or_else(|| Error::failed("what was made is gone"))
    }

    /// Adds what a unit's network makes for rows that have one hint.
    fn add(
        &self,
        stage: &Controlling<'_>,
        (unit, map): (usize, usize),
        region: Region,
        rows: &[u32],
    ) -> Result<()> {
        let call = &stage.call;
        let (planned, network) = (self.planned(unit)?, self.network(call, unit)?);
        let hinted = self.hinted(call, (unit, map), region)?;
        let made = match (network.kind, &hinted[..]) {
            (Kind::Adapter, _) => hinted,
            (Kind::ControlNet, [hint]) => {
                let open = self.opened(call, unit)?;
                let outputs = open.run_in_stage(call, RESIDUALS, &[("hint", (*hint).into())], Some(rows))?;
                outputs.iter().map(|(_, tensor)| tensor).collect()
            }
            (Kind::ControlNet | Kind::IpAdapter, _) => {
                return Err(Error::failed("a hint of several tensors"));
            }
        };
        let mask = planned.unit.effective_region_mask.map(|mask| mask.image(call)).transpose()?;
        let (made, mask) = if network.is_pooled {
            (pooled(call, made, mask.map(|mask| (mask, region)))?, None)
        } else {
            (made, mask)
        };
        let scales = planned.unit.scales(network.kind, network.places.len(), stage.evaluation.pass);
        for (((at, _), tensor), scale) in network.places.iter().zip(made).zip(scales) {
            stage.add(&Residual { at: *at, tensor, rows: Some(rows), mask: mask.map(Mask::from), scale })?;
        }
        Ok(())
    }
}

/// The means over the pictures, everywhere, of what a mask over the canvas leaves of them.
fn pooled<'a>(
    call: &Call<'a>,
    tensors: Vec<Tensor<'a>>,
    mask: Option<(Image<'a>, Region)>,
) -> Result<Vec<Tensor<'a>>> {
    let mut ops = call.ops()?;
    let mask = mask.map(|(mask, region)| seen(&mut ops, mask, region));
    let mut means = vec![];
    for tensor in tensors {
        let left = match (mask, &tensor.dims()?[..]) {
            (Some(mask), [.., height, width]) => {
                let mask = ops.resize(mask, (*height, *width), Filter::Bilinear);
                Some(ops.mul(tensor, mask))
            }
            _ => None,
        };
        let mean = match left {
            Some(left) => ops.reduce(left, &[2, 3], Reduction::Mean),
            None => ops.reduce(tensor, &[2, 3], Reduction::Mean),
        };
        means.push(ops.sum(tensor, 0.0, mean, 1.0));
    }
    let made = ops.run(&means)?;
    means.into_iter().map(|mean| made.tensor(mean)).collect()
}

/// The part of a mask over the canvas that a region shows, as the host sees it; nothing counts beyond the canvas.
fn seen<'a>(ops: &mut Ops<'a>, mask: Image<'a>, region: Region) -> Node {
    let (whole, (width, height)) = (ops.to_floats(mask), region.canvas);
    if (region.at, region.size) == ((0, 0), region.canvas) {
        return whole;
    }
    let whole = ops.resize(whole, (height, width), Filter::Bilinear);
    // What is beyond a border on one side, and what of the canvas is seen.
    let span = |at: i32, size: usize, canvas: usize| {
        let (before, first) = (at.min(0).unsigned_abs() as usize, at.max(0) as usize);
        let last = (first + size.saturating_sub(before)).min(canvas).max(first.min(canvas));
        (before, first.min(canvas)..last)
    };
    let (left, columns) = span(region.at.0, region.size.0, width);
    let (top, rows) = span(region.at.1, region.size.1, height);
    let margin = |size: usize, before: usize, seen: usize| size.saturating_sub(before + seen);
    let margins =
        [left, margin(region.size.0, left, columns.len()), top, margin(region.size.1, top, rows.len())];
    let part = ops.slice(whole, 3, columns);
    let part = ops.slice(part, 2, rows);
    ops.pad(part, margins, Border::Constant(0.0))
}

/// The first channel of each pixel.
fn grey(image: &Image<'_>) -> Result<Vec<u8>> {
    Ok(image.read()?.iter().step_by(image.channels).copied().collect())
}

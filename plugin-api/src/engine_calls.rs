//! Engines of any plugin: which there are, and what they make of a picture.

use serde::Serialize;

use crate::abi::{
    LATENTD_DETECTOR, LATENTD_PREPROCESSOR, LATENTD_REGISTRY, LATENTD_RESTORER, LATENTD_TAGGER,
    LATENTD_UPSCALER, latentd_bytes, latentd_detection, latentd_engine_need, latentd_engine_result,
    latentd_engine_run, latentd_handle, latentd_list, latentd_registry, latentd_text,
};
use crate::call::{Call, lacks};
use crate::error::{Error, Result};
use crate::handed_over::HandedOver;
use crate::host::{bytes, items, lend, text};
use crate::image::Image;
use crate::job::Plan;
use crate::tensor::Tensor;

/// A kind of engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// A picture larger.
    Upscaler,
    /// A picture mended.
    Restorer,
    /// A control image of a picture.
    Preprocessor,
    /// Things with boxes.
    Detector,
    /// What a picture is of.
    Tagger,
}

impl EngineKind {
    fn code(self) -> u32 {
        match self {
            Self::Upscaler => LATENTD_UPSCALER,
            Self::Restorer => LATENTD_RESTORER,
            Self::Preprocessor => LATENTD_PREPROCESSOR,
            Self::Detector => LATENTD_DETECTOR,
            Self::Tagger => LATENTD_TAGGER,
        }
    }
}

impl Plan<'_> {
    /// An engine that the job will run, so often: it is looked for as the request comes. Names of parameters that the schema marks
    /// `x-engine` are planned without it.
    pub fn engine(&self, kind: EngineKind, name: &str, runs: u32) -> Result<()> {
        let engine = self.table.engine.ok_or_else(lacks)?;
        let need = latentd_engine_need {
            size: size_of::<latentd_engine_need>() as u32,
            kind: kind.code(),
            entry: lend(name),
            runs,
            reserved: 0,
            params: latentd_bytes { data: std::ptr::null(), length: 0 },
        };
        // SAFETY: the call is under way, and the struct and what it points to are lent.
        Error::of_service(unsafe { engine(self.call.pointer, &raw const need) })
    }
}

impl<'a> Call<'a> {
    /// The names of a kind, sorted.
    pub fn engine_names(&self, kind: EngineKind) -> Result<Vec<String>> {
        let names = self.registry()?.names.ok_or_else(lacks)?;
        let mut list = latentd_list { items: std::ptr::null(), count: 0, stride: 0 };
        // SAFETY: the call is under way; the list is ours.
        Error::of_service(unsafe { names(self.pointer, kind.code(), &raw mut list) })?;
        // SAFETY: lent until the call ends.
        let all = unsafe { items::<latentd_text>(list)? };
        // SAFETY: as above.
        Ok(all.into_iter().map(|name| unsafe { text(name) }.to_owned()).collect())
    }

    /// An engine, to be run once what it is given is said.
    pub fn engine(&self, kind: EngineKind, name: &str) -> EngineCall<'a> {
        EngineCall {
            call: *self,
            kind,
            name: name.to_owned(),
            mask: 0,
            size: (0, 0),
            strength: 1.0,
            threshold: 0.0,
            params: vec![],
        }
    }

    fn registry(&self) -> Result<&'static latentd_registry> {
        self.host.service(LATENTD_REGISTRY)
    }
}

/// What an engine is given.
#[must_use = "it runs by `run`"]
pub struct EngineCall<'a> {
    call: Call<'a>,
    kind: EngineKind,
    name: String,
    mask: latentd_handle,
    size: (u32, u32),
    strength: f64,
    threshold: f64,
    params: Vec<u8>,
}

/// What came of it.
pub struct EngineResult<'a> {
    /// Of kinds that have one.
    pub image: Option<Image<'a>>,
    /// What was found.
    pub detections: Vec<Detected<'a>>,
    /// A map in MessagePack, or nothing.
    pub data: &'a [u8],
}

/// One thing that was found.
pub struct Detected<'a> {
    /// "face".
    pub label: &'a str,
    /// The engine's number for it.
    pub class_id: u32,
    /// 0…1.
    pub score: f32,
    /// Left, top, right and bottom in pixels, half open; zeros without a box.
    pub bounds: [f32; 4],
    /// Places in pixels.
    pub points: Vec<[f32; 2]>,
    /// Of one channel, as large as the picture.
    pub mask: Option<Image<'a>>,
    /// `(width)`.
    pub embedding: Option<Tensor<'a>>,
    /// A map in MessagePack, or nothing.
    pub data: &'a [u8],
}

impl<'a> EngineCall<'a> {
    /// Only where this image of one channel, as large as the picture, says so.
    pub fn mask(self, mask: &Image<'a>) -> Self {
        Self { mask: mask.handle, ..self }
    }

    /// The wanted size in pixels; 0 is the engine's choice. An upscaler goes over the picture until it is as large, three times at
    /// most, and Lanczos does the rest.
    pub fn size(self, width: u32, height: u32) -> Self {
        Self { size: (width, height), ..self }
    }

    /// How far a restorer goes, 0…1; 1 if it is not said.
    pub fn strength(self, strength: f64) -> Self {
        Self { strength, ..self }
    }

    /// What scores below is left out, 0…1; 0 if it is not said.
    pub fn threshold(self, threshold: f64) -> Self {
        Self { threshold, ..self }
    }

    /// What the engine takes beside: a struct or map.
    pub fn params(self, params: &impl Serialize) -> Result<Self> {
        let params = rmp_serde::to_vec_named(params)
            .map_err(|error| Error::failed(format!("an engine's params cannot be encoded: {error}")))?;
        Ok(Self { params, ..self })
    }

    /// Runs it on a picture.
    pub fn run(&self, image: impl Into<HandedOver<'a>>) -> Result<EngineResult<'a>> {
        let call = self.call;
        let run = call.registry()?.run.ok_or_else(lacks)?;
        let asked = latentd_engine_run {
            size: size_of::<latentd_engine_run>() as u32,
            kind: self.kind.code(),
            entry: lend(&self.name),
            file: 0,
            image: image.into().into_handle(&call)?,
            mask: self.mask,
            width: self.size.0,
            height: self.size.1,
            strength: self.strength,
            threshold: self.threshold,
            params: latentd_bytes { data: self.params.as_ptr().cast(), length: self.params.len() as u64 },
        };
        let mut result = latentd_engine_result {
            size: size_of::<latentd_engine_result>() as u32,
            reserved: 0,
            image: 0,
            detections: latentd_list { items: std::ptr::null(), count: 0, stride: 0 },
            data: latentd_bytes { data: std::ptr::null(), length: 0 },
        };
        // SAFETY: the call is under way; both structs are ours, and what they point to is lent.
        Error::of_service(unsafe { run(call.pointer, &raw const asked, &raw mut result) })?;
        // SAFETY: what the host fills in is lent until the call ends.
        let found = unsafe { items::<latentd_detection>(result.detections)? };
        let detections = found.into_iter().map(|found| detected(call, found)).collect::<Result<_>>()?;
        Ok(EngineResult {
            image: (result.image != 0).then(|| Image::of(call, result.image)).transpose()?,
            detections,
            // SAFETY: as above.
            data: unsafe { bytes(result.data.data, result.data.length) },
        })
    }
}

fn detected(call: Call<'_>, found: latentd_detection) -> Result<Detected<'_>> {
    let count = if found.points.is_null() { 0 } else { found.point_count as usize };
    let points = (0..count).map(|index| {
        // SAFETY: there are so many pairs, lent until the call ends.
        unsafe { [*found.points.add(2 * index), *found.points.add(2 * index + 1)] }
    });
    Ok(Detected {
        // SAFETY: lent until the call ends.
        label: unsafe { text(found.label) },
        class_id: found.class_id,
        score: found.score,
        bounds: [found.x0, found.y0, found.x1, found.y1],
        points: points.collect(),
        mask: (found.mask != 0).then(|| Image::of(call, found.mask)).transpose()?,
        embedding: (found.embedding != 0).then_some(Tensor { call, handle: found.embedding }),
        // SAFETY: lent until the call ends.
        data: unsafe { bytes(found.data.data, found.data.length) },
    })
}

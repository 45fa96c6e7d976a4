//! Engines: what a plugin computes for whoever names one of its entries. A trait for each kind.

use std::ptr::null;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::abi::{
    latentd_bytes, latentd_call, latentd_detection, latentd_engine_run, latentd_file, latentd_handle,
    latentd_status,
};
use crate::call::Call;
use crate::error::{Error, Result};
use crate::given::File;
use crate::handed_over::HandedOver;
use crate::host::{bytes, lend, lent, text};
use crate::image::Image;
use crate::job::{Plan, Plugin};
use crate::tensor::Tensor;

/// What an upscaler says of an entry; zeros are as usual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpscalerFacts {
    /// How many times as large it makes a picture, 1 to 16.
    pub scale: u32,
    /// Sides of the tiles that it is given, in pixels of the picture; 0: the whole at once.
    pub tile: u32,
    /// Pixels over which tiles fade into one another, at most half of a tile.
    pub overlap: u32,
    /// What both sides are to be a multiple of: the host fills up, and cuts the result.
    pub multiple: u32,
    /// Tiles that a run may be given at once.
    pub most_at_once: u32,
}

/// An entry as a request names it.
pub struct Entry<'a> {
    /// The call.
    pub call: Call<'a>,
    /// Its name.
    pub name: &'a str,
    /// The library file that it is, where the manifest says `library`.
    pub file: Option<File>,
    /// What it will need: networks, and other engines.
    pub plan: Plan<'a>,
}

/// Makes pictures larger; the host cuts them into tiles and puts them together.
pub trait Upscaler: Plugin {
    /// What an entry is, as a request comes that names it.
    fn describe(entry: &Entry<'_>) -> Result<UpscalerFacts>;

    /// Makes tiles larger.
    fn upscale(&self, run: &Upscaling<'_>) -> Result<()>;
}

/// Mends a whole picture: one of the same size.
pub trait Restorer: Plugin {
    /// An entry is named by a request.
    fn describe(_entry: &Entry<'_>) -> Result<()> {
        Ok(())
    }

    /// Mends one.
    fn restore(&self, run: &EngineRun<'_>) -> Result<()>;
}

/// Makes a control image of a picture.
pub trait Preprocessor: Plugin {
    /// An entry is named by a request.
    fn describe(_entry: &Entry<'_>) -> Result<()> {
        Ok(())
    }

    /// Makes one, of `width` × `height` where they are not 0.
    fn preprocess(&self, run: &EngineRun<'_>) -> Result<()>;
}

/// Finds things with boxes.
pub trait Detector: Plugin {
    /// An entry is named by a request.
    fn describe(_entry: &Entry<'_>) -> Result<()> {
        Ok(())
    }

    /// Tells what it finds by [`EngineRun::found`].
    fn detect(&self, run: &EngineRun<'_>) -> Result<()>;
}

/// Finds what a picture is of.
pub trait Tagger: Plugin {
    /// An entry is named by a request.
    fn describe(_entry: &Entry<'_>) -> Result<()> {
        Ok(())
    }

    /// Tells what it finds by [`EngineRun::found`], without boxes.
    fn tag(&self, run: &EngineRun<'_>) -> Result<()>;
}

/// Tiles that are to be made larger.
pub struct Upscaling<'a> {
    /// The entry.
    pub entry: &'a str,
    /// The library file that it is, if it is one.
    pub file: Option<File>,
    /// `(tiles, 3, height, width)` of 0…1, sRGB.
    pub tiles: Tensor<'a>,
}

impl<'a> Upscaling<'a> {
    /// What was called.
    pub fn call(&self) -> &Call<'a> {
        &self.tiles.call
    }

    /// The tiles as they became: both sides times the scale.
    pub fn replace(&self, new: impl Into<HandedOver<'a>>) -> Result<()> {
        let call = self.call();
        call.replace(0, new.into().into_handle(call)?)
    }
}

/// Takes one thing that was found.
pub type DetectedFn =
    unsafe extern "C" fn(call: *mut latentd_call, detection: *const latentd_detection) -> latentd_status;

/// What an engine is to do.
pub struct EngineRun<'a> {
    /// The entry.
    pub entry: &'a str,
    /// The library file that it is, if it is one.
    pub file: Option<File>,
    /// The picture, in three colours.
    pub image: Image<'a>,
    /// Of one channel, as large.
    pub mask: Option<Image<'a>>,
    /// Wanted, in pixels; 0 if it is the engine's choice.
    pub width: u32,
    /// As `width`.
    pub height: u32,
    /// 0…1; of a restorer.
    pub strength: f64,
    /// 0…1; what scores below is left out.
    pub threshold: f64,
    params: latentd_bytes,
    detected: Option<DetectedFn>,
}

/// One thing that was found.
#[derive(Default)]
pub struct Found<'a> {
    /// "face".
    pub label: &'a str,
    /// The engine's number for it.
    pub class_id: u32,
    /// 0…1.
    pub score: f32,
    /// Left, top, right and bottom in pixels, half open; zeros without a box.
    pub bounds: [f32; 4],
    /// Places in pixels.
    pub points: &'a [[f32; 2]],
    /// An image of one channel as large as the picture, white where it is.
    pub mask: Option<HandedOver<'a>>,
    /// A tensor `(width)`: what tells it from others of its class.
    pub embedding: Option<HandedOver<'a>>,
    /// A map in MessagePack; may be empty.
    pub data: &'a [u8],
}

impl<'a> EngineRun<'a> {
    /// What was called.
    pub fn call(&self) -> &Call<'a> {
        &self.image.call
    }

    /// What the engine takes beside.
    pub fn params<T: DeserializeOwned>(&self) -> Result<T> {
        // SAFETY: lent until the call ends.
        let params = unsafe { bytes(self.params.data, self.params.length) };
        let params = if params.is_empty() { &[0x80] } else { params };
        rmp_serde::from_slice(params)
            .map_err(|error| Error::invalid(format!("params cannot be read: {error}")))
    }

    /// The image that came of it.
    pub fn replace(&self, new: impl Into<HandedOver<'a>>) -> Result<()> {
        let call = self.call();
        call.replace(0, new.into().into_handle(call)?)
    }

    /// What there is to say of the picture as a whole: a map, such as a tagger's `caption`.
    pub fn reply(&self, data: &impl Serialize) -> Result<()> {
        let data = rmp_serde::to_vec_named(data)
            .map_err(|error| Error::failed(format!("its data cannot be encoded: {error}")))?;
        self.call().reply(0, &data)
    }

    /// Tells of a thing.
    pub fn found(&self, found: Found<'_>) -> Result<()> {
        let detected = self.detected.ok_or_else(|| Error::failed("this kind of engine finds nothing"))?;
        let [x0, y0, x1, y1] = found.bounds;
        let call = self.call();
        let handle = |content: Option<HandedOver<'_>>| -> Result<latentd_handle> {
            content.map_or(Ok(0), |content| content.into_handle(call))
        };
        let detection = latentd_detection {
            size: size_of::<latentd_detection>() as u32,
            class_id: found.class_id,
            label: lend(found.label),
            score: found.score,
            x0,
            y0,
            x1,
            y1,
            point_count: found.points.len() as u32,
            points: if found.points.is_empty() { null() } else { found.points.as_ptr().cast() },
            mask: handle(found.mask)?,
            embedding: handle(found.embedding)?,
            data: latentd_bytes { data: found.data.as_ptr().cast(), length: found.data.len() as u64 },
        };
        // SAFETY: the call is under way; what it points to is lent.
        Error::of_service(unsafe { detected(call.pointer, &raw const detection) })
    }
}

/// What the host asks, as far as it was known when this was built.
///
/// # Safety
/// `run` is null, or as the ABI says, until the call ends.
pub(crate) unsafe fn asked(run: *const latentd_engine_run) -> Result<latentd_engine_run> {
    // SAFETY: as the caller says.
    unsafe { lent(run) }
}

fn file(number: latentd_file) -> Option<File> {
    (number != 0).then_some(File(number))
}

impl<'a> Entry<'a> {
    /// # Safety
    /// As [`asked`].
    pub(crate) unsafe fn of(call: Call<'a>, run: &latentd_engine_run, plan: Plan<'a>) -> Self {
        // SAFETY: lent until the call ends.
        Self { call, name: unsafe { text(run.entry) }, file: file(run.file), plan }
    }
}

impl<'a> Upscaling<'a> {
    /// # Safety
    /// As [`asked`].
    pub(crate) unsafe fn of(call: Call<'a>, run: &'a latentd_engine_run) -> Self {
        let tiles = Tensor { call, handle: run.image };
        // SAFETY: lent until the call ends.
        Self { entry: unsafe { text(run.entry) }, file: file(run.file), tiles }
    }
}

impl<'a> EngineRun<'a> {
    /// # Safety
    /// As [`asked`].
    pub(crate) unsafe fn of(
        call: Call<'a>,
        run: &'a latentd_engine_run,
        detected: Option<DetectedFn>,
    ) -> Result<Self> {
        let image = |handle: latentd_handle| Image::of(call, handle);
        Ok(Self {
            // SAFETY: lent until the call ends.
            entry: unsafe { text(run.entry) },
            file: file(run.file),
            image: image(run.image)?,
            mask: if run.mask == 0 { None } else { Some(image(run.mask)?) },
            width: run.width,
            height: run.height,
            strength: run.strength,
            threshold: run.threshold,
            params: run.params,
            detected,
        })
    }
}

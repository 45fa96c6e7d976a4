//! The step after a drawing: its pictures made larger by any upscaler there is, as `image.upscale` makes given ones.

use latentd_plugin_api::{Batch, Call, EngineKind, Error, HandedOver, Image, Job, Plan, Result};
use serde::{Deserialize, Serialize};

/// What leaves a picture as it is.
const NONE: &str = "None";
/// How many times as large if nothing is said, here and by hires fix: A1111's.
const USUAL_SCALE: f64 = 2.0;
/// What sides come down to multiples of, as in A1111's extras.
const WHOLE: usize = 8;
/// What the host takes for a picture.
const LONGEST_SIDE: usize = 1 << 16;
const MOST_PIXELS: usize = 1 << 28;
/// The stage that it takes part in.
const STAGE: &str = "batch.post/draft-1";

/// What the request says. By the manifest's schema it is valid; of an instance for engines it is empty.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Wish {
    upscaler_1: String,
    upscaler_2: String,
    extras_upscaler_2_visibility: f64,
    scale: Option<f64>,
    width: Option<usize>,
    height: Option<usize>,
    crop: bool,
    tile: Option<u32>,
    overlap: Option<u32>,
}

/// As much of a request as tells how large its pictures will be.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Drawing {
    width: Option<usize>,
    height: Option<usize>,
    enable_hr: bool,
    hr_scale: Option<f64>,
    hr_resize_x: usize,
    hr_resize_y: usize,
}

/// How an engine is to go about it.
#[derive(Serialize)]
struct Tiles {
    #[serde(skip_serializing_if = "Option::is_none")]
    tile: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    overlap: Option<u32>,
    share: f64,
}

/// Refuses as the request comes what cannot be.
pub fn plan(job: &Job<'_>, plan: &Plan<'_>) -> Result<bool> {
    let wish: Wish = job.params()?;
    let drawing: Drawing = job.request()?;
    let refused = |text: String| Err(Error::invalid(text));
    if job.method() == "outpaint" {
        let text = "what outpaint draws becomes part of a larger picture, and keeps its size; make the result larger by image.upscale";
        return refused(text.to_owned());
    }
    match (wish.scale, wish.width, wish.height) {
        (Some(_), Some(_), _) | (Some(_), _, Some(_)) => {
            return refused("scale: width and height are given too; give scale, or these".to_owned());
        }
        (None, Some(_), None) => return refused("height: is missing beside width; give both".to_owned()),
        (None, None, Some(_)) => return refused("width: is missing beside height; give both".to_owned()),
        _ => (),
    }
    if wish.overlap.is_some() && wish.tile.is_none() {
        return refused("tile: is missing beside overlap; give both".to_owned());
    }
    if let (Some(tile), Some(overlap)) = (wish.tile, wish.overlap)
        && tile > 0
        && overlap > tile / 2
    {
        return refused(format!("overlap: {overlap} of tiles of {tile}; give at most {}", tile / 2));
    }
    if let Some(size) = drawing.least() {
        let filled = wish.filled_checked(size)?;
        plan.memory(wish.bytes(filled, job.pictures()), 0)?;
    }
    plan.stage(STAGE)?;
    Ok(true)
}

impl Drawing {
    /// The size of its pictures, as far as it is said; they may be larger.
    fn least(&self) -> Option<(usize, usize)> {
        let (width, height) = (self.width?, self.height?);
        if !self.enable_hr {
            return Some((width, height));
        }
        let up = |side: usize, resized: usize| {
            if self.hr_resize_x + self.hr_resize_y > 0 {
                resized.max(side)
            } else {
                (side as f64 * self.hr_scale.unwrap_or(USUAL_SCALE)) as usize
            }
        };
        Some((up(width, self.hr_resize_x), up(height, self.hr_resize_y)))
    }
}

impl Wish {
    fn has_second(&self) -> bool {
        self.upscaler_2 != NONE && !self.upscaler_2.is_empty() && self.extras_upscaler_2_visibility > 0.0
    }

    /// How large upscalers make a picture of this size.
    fn filled(&self, (wide, high): (usize, usize)) -> (usize, usize) {
        let down = |side: usize, scale: f64| (side as f64 * scale / WHOLE as f64).floor() as usize * WHOLE;
        let (Some(width), Some(height)) = (self.width, self.height) else {
            let scale = self.scale.unwrap_or(USUAL_SCALE);
            return (down(wide, scale), down(high, scale));
        };
        let scale = (width as f64 / wide as f64).max(height as f64 / high as f64);
        (down(wide, scale).max(width), down(high, scale).max(height))
    }

    /// The same, if it is a size that a picture may have.
    fn filled_checked(&self, (width, height): (usize, usize)) -> Result<(usize, usize)> {
        let (wide, high) = self.filled((width, height));
        let field = if self.width.is_some() { "width" } else { "scale" };
        if wide == 0 || high == 0 {
            // Up, so that what is told is enough.
            let least = (WHOLE as f64 / width.min(height).max(1) as f64 * 1e3).ceil() / 1e3;
            return Err(Error::invalid(format!(
                "{field}: a picture of {width}x{height} would have no pixels, for sides come down to what {WHOLE} divides; give \
                 at least {least:.3}"
            )));
        }
        if wide.max(high) > LONGEST_SIDE || wide.saturating_mul(high) > MOST_PIXELS {
            return Err(Error::invalid(format!(
                "{field}: a picture of {width}x{height} would become {wide}x{high}; sides of {LONGEST_SIDE} and {MOST_PIXELS} \
                 pixels are possible"
            )));
        }
        Ok((wide, high))
    }

    /// The size of what is given back.
    fn result(&self, filled: (usize, usize)) -> (usize, usize) {
        match (self.width, self.height) {
            (Some(width), Some(height)) if self.crop => (width, height),
            _ => filled,
        }
    }

    /// Bytes of so many pictures that became so large, and of one on its way there: by either upscaler, and before the last round.
    fn bytes(&self, filled: (usize, usize), pictures: usize) -> u64 {
        const COLOURS: u64 = 3;
        let area =
            |(wide, high): (usize, usize)| COLOURS.saturating_mul(wide as u64).saturating_mul(high as u64);
        let on_the_way = if self.has_second() { 3 } else { 2 };
        let all = area(self.result(filled)).saturating_mul(pictures as u64);
        all.saturating_add(area(filled).saturating_mul(on_the_way))
    }

    /// Makes all pictures larger.
    pub fn apply(&self, stage: &Batch<'_>) -> Result<()> {
        let runs = stage.pictures().len() * if self.has_second() { 2 } else { 1 };
        let mut done = 0;
        let mut larger = |name: &str, image, size| {
            let made = self.larger(&stage.call, name, image, size, 1.0 / runs as f64)?;
            done += 1;
            stage.call.progress(f64::from(done) / runs as f64, name)?;
            Ok::<_, Error>(made)
        };
        for picture in stage.pictures() {
            let image = picture.image;
            let filled = self.filled_checked((image.width, image.height))?;
            let first = larger(&self.upscaler_1, image, filled)?;
            let second = self.has_second().then(|| larger(&self.upscaler_2, image, filled)).transpose()?;
            picture.replace(self.finished(&stage.call, first, second)?)?;
        }
        Ok(())
    }

    /// A picture of this size.
    fn larger<'a>(
        &self,
        call: &Call<'a>,
        name: &str,
        image: Image<'a>,
        (wide, high): (usize, usize),
        share: f64,
    ) -> Result<Image<'a>> {
        let size = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
        let engine = call.engine(EngineKind::Upscaler, name).size(size(wide), size(high));
        let engine = engine.params(&Tiles { tile: self.tile, overlap: self.overlap, share })?;
        engine.run(image)?.image.ok_or_else(|| Error::failed("an upscaler without an image"))
    }

    /// The second laid over the first, and the middle of it where that is asked for.
    fn finished<'a>(
        &self,
        call: &Call<'a>,
        first: Image<'a>,
        second: Option<Image<'a>>,
    ) -> Result<HandedOver<'a>> {
        let filled = (first.width, first.height);
        let (width, height) = self.result(filled);
        if second.is_none() && (width, height) == filled {
            return Ok(first.into());
        }
        let (left, top) = (filled.0 / 2 - width / 2, filled.1 / 2 - height / 2);
        let channels = first.channels;
        let share = self.extras_upscaler_2_visibility as f32;
        let below = first.read()?;
        let above = second.map(|second| second.read()).transpose()?;
        let mut made = call.new_image(width, height, channels)?;
        let rows = made.pixels_mut().chunks_exact_mut(width * channels);
        for (row, to) in rows.enumerate() {
            call.check()?;
            let from = ((top + row) * filled.0 + left) * channels;
            let part = |pixels: &[u8]| pixels.get(from..from + width * channels).map(<[u8]>::to_vec);
            let whole = || Error::failed("an upscaler's image with too few pixels");
            to.copy_from_slice(&part(&below).ok_or_else(whole)?);
            let Some(above) = &above else { continue };
            for (to, above) in to.iter_mut().zip(part(above).ok_or_else(whole)?) {
                let (from, above) = (f32::from(*to), f32::from(above));
                *to = (from + share * (above - from)) as u8;
            }
        }
        Ok(made.into())
    }
}

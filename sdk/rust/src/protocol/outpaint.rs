//! `outpaint`: a picture continued beyond its sides.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ImageIn, Txt2ImgParams};

/// What to continue, how far, and what to draw there. A1111's scripts "Outpainting mk2" and "Poor man's outpainting" with the names
/// of their fields, but for how far: that is told for each side. `width` and `height` are the most that is drawn at once, the
/// checkpoint's own if left out. A side that is continued comes to a multiple of 64, with its opposite, so more may be drawn than
/// is asked for. Opacity is dropped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("additionalProperties" = false))]
pub struct OutpaintParams {
    /// What to draw: the fields of `txt2img`, without lists of prompts, regions, and more than one picture in a batch. A1111
    /// recommends a `denoising_strength` of 0.8 and many steps. Picture i has `seed + i`; its tiles have the seeds from there on
    /// with "poor-mans", and all the same with "mk2".
    #[serde(flatten)]
    pub drawing: Txt2ImgParams,
    /// The picture, turned as EXIF says.
    pub image: ImageIn,
    /// Pixels before its first column.
    #[schemars(range(min = 0, max = 65_536))]
    pub left: u32,
    /// After its last.
    #[schemars(range(min = 0, max = 65_536))]
    pub right: u32,
    /// Above its first row.
    #[schemars(range(min = 0, max = 65_536))]
    pub up: u32,
    /// Below its last.
    #[schemars(range(min = 0, max = 65_536))]
    pub down: u32,
    /// How it is done.
    pub method: OutpaintMethod,
    /// How far into the picture what is drawn reaches; 8 with "mk2" and 4 with "poor-mans" if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 256))]
    pub mask_blur: Option<u32>,
    /// With "poor-mans": what is there before it is drawn: 0 the colours around it, 1 black, 2 noise, 3 nothing.
    #[schemars(range(min = 0, max = 3))]
    pub inpainting_fill: u8,
    /// With "mk2": the exponent of the noise that it begins with; lower is more detail.
    #[schemars(range(min = 0.0, max = 4.0))]
    pub noise_q: f64,
    /// With "mk2": the share of that noise that differs between colours.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub color_variation: f64,
}

/// How a picture is continued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OutpaintMethod {
    /// All sides at once, in tiles.
    PoorMans,
    /// One side after the other, each from noise that has the picture's spectrum.
    #[default]
    Mk2,
}

impl OutpaintMethod {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::PoorMans, Self::Mk2];

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::PoorMans => "poor-mans",
            Self::Mk2 => "mk2",
        }
    }
}

impl Default for OutpaintParams {
    fn default() -> Self {
        Self {
            drawing: Txt2ImgParams::default(),
            image: ImageIn::default(),
            left: 0,
            right: 0,
            up: 0,
            down: 0,
            method: OutpaintMethod::default(),
            mask_blur: None,
            inpainting_fill: 0,
            noise_q: 1.0,
            color_variation: 0.05,
        }
    }
}

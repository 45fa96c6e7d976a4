//! `image.upscale`: pictures made larger, and faces in them restored.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Artifact, ImageIn, ImageOut, OnDisconnect, OutputParams, PluginLine};

/// What to make larger, by what, how far: A1111's "Extras" with its names and meaning.
///
/// Upscalers are "None" (nothing is done), "Lanczos" and "Nearest", and those of plugins, by the names of their entries: networks
/// in the library's folders for upscalers, where a plugin runs them. One goes over a picture up to three times, until it is as
/// large as is asked for; what is too much is brought back by Lanczos. Opacity is kept and upscaled apart, 16 bits a channel stay
/// 16 in PNG, and the colour profile is kept. Pictures are turned as EXIF says.
///
/// Upscaling comes first, then GFPGAN, then CodeFormer. Something of it must be asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UpscaleParams {
    /// The picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageIn>,
    /// Or several, one after the other.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub images: Vec<ImageIn>,
    /// The upscaler. "None" leaves the picture as large as it is, whatever is said beside.
    #[schemars(length(max = 1000))]
    pub upscaler_1: String,
    /// A second one, whose result is laid over that of the first.
    #[schemars(length(max = 1000))]
    pub upscaler_2: String,
    /// How much of it is seen: 0 nothing, 1 nothing else.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub extras_upscaler_2_visibility: f64,
    /// How many times as large, then down to sides that 8 divides: A1111's `upscaling_resize`. 2 if neither it nor a size is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.01, max = 64.0))]
    pub scale: Option<f64>,
    /// Instead, with `height`: the columns to fill, the ratio of the sides kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_536))]
    pub width: Option<u32>,
    /// The rows to fill.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_536))]
    pub height: Option<u32>,
    /// With `width` and `height`: whether what stands out of them is cut off, on both sides alike.
    pub crop: bool,
    /// Sides of the tiles that plugins' upscalers work on, in pixels of the picture; 0: the whole at once. The upscaler's own if
    /// left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 16_384))]
    pub tile: Option<u32>,
    /// Pixels over which tiles fade into one another, at most half of a tile. The upscaler's own if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 8192))]
    pub overlap: Option<u32>,
    /// How much is seen of what GFPGAN makes of faces: a restorer of a plugin that is called so, or whose name begins so.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub gfpgan_visibility: f64,
    /// The same of CodeFormer.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub codeformer_visibility: f64,
    /// How close CodeFormer stays to the picture: 0 changes most, 1 least.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub codeformer_weight: f64,
    /// Versions of plugins whose engines are named, where they are not the highest.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub plugin_versions: BTreeMap<String, String>,
    /// Whether notices are errors.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub strict: bool,
    /// How pictures come back. JPEG, WebP and raw pixels have 8 bits a channel.
    pub output: OutputParams,
    /// What becomes of the job when the connection ends that asked for it.
    #[serde(skip_serializing_if = "OnDisconnect::is_keep")]
    pub on_disconnect: OnDisconnect,
}

impl UpscaleParams {
    /// One picture, made larger by an upscaler.
    pub fn new(image: ImageIn, upscaler: impl Into<String>) -> Self {
        Self { image: Some(image), upscaler_1: upscaler.into(), ..Self::default() }
    }
}

impl Default for UpscaleParams {
    fn default() -> Self {
        Self {
            image: None,
            images: vec![],
            upscaler_1: "None".into(),
            upscaler_2: "None".into(),
            extras_upscaler_2_visibility: 0.0,
            scale: None,
            width: None,
            height: None,
            crop: true,
            tile: None,
            overlap: None,
            gfpgan_visibility: 0.0,
            codeformer_visibility: 0.0,
            codeformer_weight: 0.0,
            plugin_versions: BTreeMap::new(),
            strict: false,
            output: OutputParams::default(),
            on_disconnect: OnDisconnect::Keep,
        }
    }
}

/// What was made larger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UpscaleResult {
    /// The pictures, one for each that was given. Texts and profiles are those of the files that were given; `parameters`, where
    /// there is one, tells at its end what was done, and PNG's keys `postprocessing` and `extras` tell that alone. So does
    /// `infotext` of a picture that had none.
    pub images: Vec<ImageOut>,
    /// The job that made them.
    pub job: String,
    /// Seconds from its turn to the result, encoding and writing included.
    #[serde(default)]
    pub total_s: f64,
    /// Seconds of it that each plugin took.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub plugin_timings: BTreeMap<String, f64>,
    /// What plugins logged meanwhile, at most 100 lines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plugin_log: Vec<PluginLine>,
    /// Pictures that plugins left beside the results.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
    /// What the person who asked should know: what plugins have to say, and files that could not be written where they should be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
}

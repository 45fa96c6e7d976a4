//! `img2img`: from pictures to pictures, all of them or what a mask says.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ImageIn, SdUpscaleParams, Txt2ImgParams};

/// What to draw, and from what. Names, meaning and defaults are A1111's, beside those of `txt2img` that are here too. Where
/// `width` and `height` are left out, pictures are drawn at the size of the first of `init_images`, up to whole eighths; with a
/// mask and `inpaint_full_res` at the checkpoint's own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("additionalProperties" = false))]
#[allow(clippy::struct_excessive_bools, reason = "the fields are A1111's")]
pub struct Img2ImgParams {
    /// What to draw: the fields of `txt2img`.
    #[serde(flatten)]
    pub drawing: Txt2ImgParams,
    /// The pictures to begin with: one for all that are drawn, one for each of a batch, or one for each. They are turned as EXIF
    /// says.
    #[schemars(length(min = 1, max = 64_000))]
    pub init_images: Vec<ImageIn>,
    /// How a picture of another size comes to that which is drawn: 0 stretched, 1 cropped, 2 with its edges drawn out, 3
    /// stretched as latents.
    #[schemars(range(min = 0, max = 3))]
    pub resize_mode: u8,
    /// Draws `steps` steps, whatever the strength; else it is that share of them. A1111's option of that name.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub img2img_fix_steps: bool,
    /// What the initial noise is multiplied by; 1 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 10.0))]
    pub initial_noise_multiplier: Option<f64>,
    /// How much noise is added beside that of the first level. A1111's option of that name.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub img2img_extra_noise: f64,
    /// Gives what is drawn the colours of what it is drawn from. A1111's option of that name.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub img2img_color_correction: bool,
    /// What is behind what is not opaque, `#rrggbb`. A1111's option of that name.
    #[schemars(length(min = 7, max = 7))]
    pub img2img_background_color: String,
    /// Where to draw: white, or opaque if the mask has transparent pixels. One for all pictures, or a list of them as
    /// `init_images`. All is drawn if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask: Option<Masks>,
    /// Softens the mask: `mask_blur_x` and `mask_blur_y` in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1024.0))]
    pub mask_blur: Option<f64>,
    /// Sigma in pixels of the mask, along rows.
    #[schemars(range(min = 0.0, max = 1024.0))]
    pub mask_blur_x: f64,
    /// Along columns.
    #[schemars(range(min = 0.0, max = 1024.0))]
    pub mask_blur_y: f64,
    /// Whether latents are drawn whole or not at all where the mask is between; and opacity is.
    pub mask_round: bool,
    /// What is there before it is drawn: 0 the colours around it, 1 what was there, 2 noise, 3 nothing.
    #[schemars(range(min = 0, max = 3))]
    pub inpainting_fill: u8,
    /// Draws only what is around the mask, at the full size, and puts it back into the picture.
    pub inpaint_full_res: bool,
    /// With that: pixels around it.
    #[schemars(range(min = 0, max = 65_536))]
    pub inpaint_full_res_padding: u32,
    /// 1 to draw what is not masked.
    #[schemars(range(min = 0, max = 1))]
    pub inpainting_mask_invert: u8,
    /// Blends what is drawn and what was there softly where the mask is grey: by the level of noise, and in the end by what
    /// changed. A1111's extension of that name; `mask_round` is off then. Off if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soft_inpainting: Option<SoftInpaintingParams>,
    /// For a checkpoint that edits pictures by words (InstructPix2Pix): how much the picture counts, beside `cfg_scale` for the
    /// words. As much as it does without if left out, or 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub image_cfg_scale: Option<f64>,
    /// For an inpainting checkpoint: how much of what is beneath the mask it does not get to see. A1111's option of that name.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub inpainting_mask_weight: f64,
    /// Draws several times, each from the picture before, with the next seed; what is masked has what was drawn there then.
    /// A1111's script of that name. With an `n_iter` of 1 all of them are given back, else the last of each batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loopback: Option<LoopbackParams>,
    /// Makes the picture larger and draws it anew in tiles of `width` and `height`, the checkpoint's own if these are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sd_upscale: Option<Box<SdUpscaleParams>>,
}

/// How original and drawn picture are blended. Names and defaults are those of A1111's extension, its infotext's words in
/// brackets.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SoftInpaintingParams {
    /// How the original's share depends on the level of noise: below 1 more of it stays near the end, above at the beginning
    /// ("schedule bias").
    #[schemars(range(min = 0.0, max = 8.0))]
    pub mask_blend_power: f64,
    /// How much of the original stays where the mask is grey ("preservation strength").
    #[schemars(range(min = 0.0, max = 8.0))]
    pub mask_blend_scale: f64,
    /// How close the strength of blended latents is to the stronger of both ("transition contrast boost").
    #[schemars(range(min = 1.0, max = 32.0))]
    pub inpaint_detail_preservation: f64,
    /// How much the mask says beside what changed when both pictures are laid over each other ("mask influence").
    #[schemars(range(min = 0.0, max = 1.0))]
    pub composite_mask_influence: f64,
    /// How far latents must lie from the original's to be seen by half ("difference threshold").
    #[schemars(range(min = 0.0, max = 8.0))]
    pub composite_difference_threshold: f64,
    /// How sudden that is ("difference contrast").
    #[schemars(range(min = 0.0, max = 8.0))]
    pub composite_difference_contrast: f64,
}

impl Default for SoftInpaintingParams {
    fn default() -> Self {
        Self {
            mask_blend_power: 1.0,
            mask_blend_scale: 0.5,
            inpaint_detail_preservation: 4.0,
            composite_mask_influence: 0.0,
            composite_difference_threshold: 0.5,
            composite_difference_contrast: 2.0,
        }
    }
}

/// How often to draw from what was drawn.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LoopbackParams {
    /// How often in all.
    #[schemars(range(min = 1, max = 1000))]
    pub loops: u32,
    /// What `denoising_strength` becomes in the last loop.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub final_denoising_strength: f64,
    /// How it changes on the way.
    pub denoising_curve: DenoisingCurve,
}

impl Default for LoopbackParams {
    fn default() -> Self {
        Self { loops: 4, final_denoising_strength: 0.5, denoising_curve: DenoisingCurve::Linear }
    }
}

/// How a strength changes from loop to loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DenoisingCurve {
    /// Mostly in the first loops.
    Aggressive,
    /// By the same amount.
    #[default]
    Linear,
    /// Mostly in the last loops.
    Lazy,
}

/// Masks: one for all pictures, or a list of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Masks {
    /// For all of them.
    All(ImageIn),
    /// For each of a batch, or each of them.
    Each(#[schemars(length(min = 1, max = 64_000))] Vec<ImageIn>),
}

impl Masks {
    /// All that there are.
    pub fn images(&self) -> &[ImageIn] {
        match self {
            Self::All(image) => std::slice::from_ref(image),
            Self::Each(images) => images,
        }
    }
}

impl From<ImageIn> for Masks {
    fn from(image: ImageIn) -> Self {
        Self::All(image)
    }
}

impl Default for Img2ImgParams {
    fn default() -> Self {
        Self {
            drawing: Txt2ImgParams::default(),
            init_images: Vec::new(),
            resize_mode: 0,
            img2img_fix_steps: false,
            initial_noise_multiplier: None,
            img2img_extra_noise: 0.0,
            img2img_color_correction: false,
            img2img_background_color: "#ffffff".into(),
            mask: None,
            mask_blur: None,
            mask_blur_x: 4.0,
            mask_blur_y: 4.0,
            mask_round: true,
            inpainting_fill: 0,
            inpaint_full_res: true,
            inpaint_full_res_padding: 0,
            inpainting_mask_invert: 0,
            soft_inpainting: None,
            image_cfg_scale: None,
            inpainting_mask_weight: 1.0,
            loopback: None,
            sd_upscale: None,
        }
    }
}

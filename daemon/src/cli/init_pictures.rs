//! What `latentd generate` begins with, where that is pictures.

use std::path::{Path, PathBuf};

use clap::{ArgAction, Args, ValueEnum};
use latentd_client::protocol::{
    DenoisingCurve, Img2ImgParams, LoopbackParams, Masks, RepeatRequest, SoftInpaintingParams, Txt2ImgParams,
};

use super::failure::Failure;
use super::info::picture;
use super::sd_upscale::SdUpscaleArgs;

/// Fields of `img2img` as flags.
#[derive(Debug, Args)]
#[command(next_help_heading = "From pictures")]
pub(super) struct InitArgs {
    /// A picture to begin with: PNG, JPEG or WebP; given several times, one for each picture of a batch
    #[arg(long = "init-image", value_name = "FILE")]
    init_images: Vec<PathBuf>,
    /// Draws from each picture in a folder, one after the other; files are named after them, in the folder of --output
    #[arg(long, value_name = "DIR", conflicts_with = "init_images")]
    pub(super) init_dir: Option<PathBuf>,
    /// Where to draw: a picture that is white or opaque there; may be given as often as --init-image
    #[arg(long = "mask", value_name = "FILE")]
    masks: Vec<PathBuf>,
    /// How far to go from the picture, or with --enable-hr from that of the first pass: 0 nowhere, 1 to where nothing of it is left [default: 0.75]
    #[arg(long, value_name = "X")]
    denoising_strength: Option<f64>,
    /// How a picture of another size is brought to --width and --height: 0 stretched, 1 cropped, 2 with its edges drawn out, 3 stretched as latents [default: 0]
    #[arg(long, value_name = "0|1|2|3")]
    resize_mode: Option<u8>,
    /// Draw all --steps, whatever --denoising-strength
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    img2img_fix_steps: Option<bool>,
    /// What the initial noise is multiplied by [default: 1]
    #[arg(long, value_name = "X")]
    initial_noise_multiplier: Option<f64>,
    /// Noise that is added beside that of the first level [default: 0]
    #[arg(long, value_name = "X")]
    img2img_extra_noise: Option<f64>,
    /// Give what is drawn the colours of the picture
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    img2img_color_correction: Option<bool>,
    /// What is behind what is not opaque [default: #ffffff]
    #[arg(long, value_name = "#RRGGBB")]
    img2img_background_color: Option<String>,
    /// Pixels by which the mask is softened [default: 4]
    #[arg(long, value_name = "X")]
    mask_blur: Option<f64>,
    /// The same along rows only
    #[arg(long, value_name = "X")]
    mask_blur_x: Option<f64>,
    /// The same along columns only
    #[arg(long, value_name = "X")]
    mask_blur_y: Option<f64>,
    /// Whether latents are drawn whole or not at all where the mask is between [default: true]
    #[arg(long, value_name = "BOOL", action = ArgAction::Set)]
    mask_round: Option<bool>,
    /// What is under the mask before it is drawn: 0 the colours around it, 1 what was there, 2 noise, 3 nothing [default: 0]
    #[arg(long, value_name = "0|1|2|3")]
    inpainting_fill: Option<u8>,
    /// Draw only what is around the mask, at the full size, and put it back into the picture [default: true]
    #[arg(long, value_name = "BOOL", action = ArgAction::Set)]
    inpaint_full_res: Option<bool>,
    /// With that: pixels around the mask [default: 0]
    #[arg(long, value_name = "N")]
    inpaint_full_res_padding: Option<u32>,
    /// Draw what is not masked
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    inpainting_mask_invert: Option<bool>,
    /// Blend what is drawn and what was there softly where the mask is grey; or with other settings, in their order: schedule bias, preservation strength, transition contrast boost, mask influence, difference threshold, difference contrast
    #[arg(long, value_name = "X,X,X,X,X,X", num_args = 0..=1, require_equals = true, default_missing_value = "1,0.5,4,0,0.5,2", value_parser = soft_inpainting)]
    soft_inpainting: Option<SoftInpaintingParams>,
    /// For a checkpoint that edits pictures by words: how much the picture counts [default: 1]
    #[arg(long, value_name = "X")]
    image_cfg_scale: Option<f64>,
    /// For an inpainting checkpoint: how much of what is beneath the mask it does not see [default: 1]
    #[arg(long, value_name = "X")]
    inpainting_mask_weight: Option<f64>,
    /// Draw so many times, each from the picture before
    #[arg(long, value_name = "LOOPS")]
    loopback: Option<u32>,
    /// With --loopback: what --denoising-strength becomes in the last loop [default: 0.5]
    #[arg(long, value_name = "X", requires = "loopback")]
    final_denoising_strength: Option<f64>,
    /// With --loopback: how it changes on the way [default: linear]
    #[arg(long, value_name = "CURVE", requires = "loopback", ignore_case = true)]
    denoising_curve: Option<CurveArg>,
    #[command(flatten)]
    sd_upscale: SdUpscaleArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum CurveArg {
    /// Mostly in the first loops
    Aggressive,
    /// By the same amount
    Linear,
    /// Mostly in the last loops
    Lazy,
}

impl InitArgs {
    /// The request with what was given: one that begins with pictures, if any are named here or in `told`.
    pub(super) fn over(
        &self,
        drawing: Txt2ImgParams,
        told: Option<Img2ImgParams>,
    ) -> Result<RepeatRequest, Failure> {
        let drawing = Txt2ImgParams {
            denoising_strength: self.denoising_strength.or(drawing.denoising_strength),
            ..drawing
        };
        if told.is_none() && self.init_images.is_empty() && self.init_dir.is_none() {
            return match self.first_without_picture(drawing.enable_hr) {
                Some(flag) => {
                    Err(Failure::usage(format!("{flag} needs a picture: give --init-image or --init-dir")))
                }
                None => Ok(RepeatRequest::Txt2Img(Box::new(drawing))),
            };
        }
        let is_told = told.is_some();
        let told = told.unwrap_or_default();
        let pictures = |files: &[PathBuf]| {
            files.iter().map(|file| picture(Path::new(file))).collect::<Result<Vec<_>, _>>()
        };
        let init_images =
            if self.init_images.is_empty() { told.init_images } else { pictures(&self.init_images)? };
        if is_told && init_images.is_empty() && self.init_dir.is_none() {
            return Err(Failure::usage(
                "the picture was drawn from another one, which its text does not name; give that: --init-image FILE",
            ));
        }
        let masks = pictures(&self.masks)?;
        let both = self.mask_blur;
        Ok(RepeatRequest::Img2Img(Box::new(Img2ImgParams {
            drawing,
            init_images,
            resize_mode: self.resize_mode.unwrap_or(told.resize_mode),
            img2img_fix_steps: self.img2img_fix_steps.unwrap_or(told.img2img_fix_steps),
            initial_noise_multiplier: self.initial_noise_multiplier.or(told.initial_noise_multiplier),
            img2img_extra_noise: self.img2img_extra_noise.unwrap_or(told.img2img_extra_noise),
            img2img_color_correction: self.img2img_color_correction.unwrap_or(told.img2img_color_correction),
            img2img_background_color: self
                .img2img_background_color
                .clone()
                .unwrap_or(told.img2img_background_color),
            mask: match masks.len() {
                0 => told.mask,
                1 => masks.into_iter().next().map(Masks::from),
                _ => Some(Masks::Each(masks)),
            },
            mask_blur: None,
            mask_blur_x: self.mask_blur_x.or(both).unwrap_or(told.mask_blur_x),
            mask_blur_y: self.mask_blur_y.or(both).unwrap_or(told.mask_blur_y),
            mask_round: self.mask_round.unwrap_or(told.mask_round),
            inpainting_fill: self.inpainting_fill.unwrap_or(told.inpainting_fill),
            inpaint_full_res: self.inpaint_full_res.unwrap_or(told.inpaint_full_res),
            inpaint_full_res_padding: self.inpaint_full_res_padding.unwrap_or(told.inpaint_full_res_padding),
            inpainting_mask_invert: self.inpainting_mask_invert.map_or(told.inpainting_mask_invert, u8::from),
            soft_inpainting: self.soft_inpainting.or(told.soft_inpainting),
            image_cfg_scale: self.image_cfg_scale.or(told.image_cfg_scale),
            inpainting_mask_weight: self.inpainting_mask_weight.unwrap_or(told.inpainting_mask_weight),
            loopback: self.loopback.map(|loops| self.looped(loops)),
            sd_upscale: self.sd_upscale.over(told.sd_upscale),
        })))
    }

    /// Whether any of it is.
    pub(super) fn is_given(&self) -> bool {
        !self.init_images.is_empty() || self.init_dir.is_some() || self.first_without_picture(false).is_some()
    }

    fn looped(&self, loops: u32) -> LoopbackParams {
        let default = LoopbackParams::default();
        LoopbackParams {
            loops,
            final_denoising_strength: self
                .final_denoising_strength
                .unwrap_or(default.final_denoising_strength),
            denoising_curve: match self.denoising_curve {
                Some(CurveArg::Aggressive) => DenoisingCurve::Aggressive,
                Some(CurveArg::Lazy) => DenoisingCurve::Lazy,
                Some(CurveArg::Linear) | None => DenoisingCurve::Linear,
            },
        }
    }

    /// A flag that says nothing without a picture.
    fn first_without_picture(&self, is_hires: bool) -> Option<&'static str> {
        let given = [
            ("--mask", !self.masks.is_empty()),
            ("--denoising-strength", self.denoising_strength.is_some() && !is_hires),
            ("--resize-mode", self.resize_mode.is_some()),
            ("--img2img-fix-steps", self.img2img_fix_steps.is_some()),
            ("--initial-noise-multiplier", self.initial_noise_multiplier.is_some()),
            ("--img2img-extra-noise", self.img2img_extra_noise.is_some()),
            ("--img2img-color-correction", self.img2img_color_correction.is_some()),
            ("--img2img-background-color", self.img2img_background_color.is_some()),
            ("--mask-blur", [self.mask_blur, self.mask_blur_x, self.mask_blur_y].iter().any(Option::is_some)),
            ("--mask-round", self.mask_round.is_some()),
            ("--inpainting-fill", self.inpainting_fill.is_some()),
            ("--inpaint-full-res", self.inpaint_full_res.is_some()),
            ("--inpaint-full-res-padding", self.inpaint_full_res_padding.is_some()),
            ("--soft-inpainting", self.soft_inpainting.is_some()),
            ("--image-cfg-scale", self.image_cfg_scale.is_some()),
            ("--inpainting-mask-weight", self.inpainting_mask_weight.is_some()),
            ("--loopback", self.loopback.is_some()),
            ("--sd-upscale", self.sd_upscale.is_given()),
            ("--inpainting-mask-invert", self.inpainting_mask_invert.is_some()),
        ];
        given.into_iter().find(|(_, is_given)| *is_given).map(|(flag, _)| flag)
    }
}

/// Six numbers.
fn soft_inpainting(text: &str) -> Result<SoftInpaintingParams, String> {
    let numbers: Option<Vec<f64>> = text.split(',').map(|number| number.trim().parse().ok()).collect();
    match numbers.as_deref() {
        Some([power, scale, detail, influence, threshold, contrast]) => Ok(SoftInpaintingParams {
            mask_blend_power: *power,
            mask_blend_scale: *scale,
            inpaint_detail_preservation: *detail,
            composite_mask_influence: *influence,
            composite_difference_threshold: *threshold,
            composite_difference_contrast: *contrast,
        }),
        _ => Err("give six numbers with commas between, such as 1,0.5,4,0,0.5,2".to_owned()),
    }
}

/// The pictures in a folder, by their names.
pub(super) fn in_folder(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error: std::io::Error| Failure::new(format!("cannot read {}: {error}", dir.display()));
    let mut found = vec![];
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let ending = path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
        let is_picture = ending.is_some_and(|ending| ["png", "jpg", "jpeg", "webp"].contains(&&*ending));
        if is_picture && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    if found.is_empty() {
        return Err(Failure::usage(format!(
            "--init-dir: {} has no pictures (.png, .jpg, .jpeg, .webp); give another folder",
            dir.display()
        )));
    }
    Ok(found)
}

//! The table of A1111's keys: what is told of a picture behind each, and what each says of the request.
//!
//! A key is one row, in the order of A1111 1.10.1's `create_infotext` (`modules/processing.py`), so what is written is what
//! is read. Behind "Tiling" A1111 has what its parts add while they draw, in the order in which they come to it: networks,
//! the text encoder, the sampler, guidance, the VAE. A key that says its default is not written, unless A1111 writes it.

use latentd_client::protocol::{
    Img2ImgParams, NoiseSchedule, OutpaintMethod, Precision, RedrawMode, SdUpscaleParams, SeamFixMode,
    SoftInpaintingParams, UniPcSkipType, UniPcVariant,
};
use latentd_models::image::Infotext;
use latentd_models::image::inpaint::LARGEST_BLUR;
use latentd_models::sampling::{Sampler, Schedule};

use super::forms;
use super::samplers::{known_sampler, schedule};
use super::told::{Told, ToldRewriting};
use super::values::{
    background, backtrack, blob, colour, content, content_of, decoder, decoder_of, emphasis, emphasis_of,
    engine, engines, engines_of, flag, hypernetwork, loras, loras_of, margins, margins_of, number, one_of,
    plugins, plugins_of, precision, precision_of, prompt, prompts_of_tiles, prompts_of_tiles_of, regions,
    regions_of, resize_mode, resize_mode_of, rng, side, sides, size, truth, unless, vae, whole, word,
};
use super::versions;

/// A key, and how it is written and read.
struct Row {
    key: &'static str,
    /// Its value; `None` if it is not told.
    write: fn(&Told) -> Option<String>,
    /// Takes a value over; `None` if it says nothing that a request can.
    read: fn(&mut Told, &str) -> Option<()>,
}

/// A row: its key, its value, and what of a text goes where.
macro_rules! row {
    ($key:literal, |$told:ident| $value:expr, |$to:ident, $text:ident| $read:expr => $place:expr) => {
        Row {
            key: $key,
            write: |$told| $value,
            read: |$to, $text| {
                $place = $read?;
                Some(())
            },
        }
    };
}

/// A row that is written, and read as a pair.
macro_rules! template {
    ($key:literal, |$told:ident| $value:expr) => {
        Row { key: $key, write: |$told| $value, read: |_, _| None }
    };
}

/// Keys that say of a picture that it was drawn in two passes, as A1111 goes by them.
const HIRES: [&str; 4] = ["Hires upscale", "Hires resize", "Hires resize-1", "Hires upscaler"];

/// What A1111 had of such pictures before 1.1, where the rest of it was otherwise.
const OLD_HIRES: &str = "First pass size";

/// What A1111 writes where what is not masked is drawn, and where only what is masked is.
const INVERTED: &str = "Inpaint not masked";
const ONLY_MASKED: &str = "Only masked";

/// The largest whole number up to which each is exact in other programs' numbers.
const MOST_EXACT: i64 = (1 << 53) - 1;

static ROWS: &[Row] = &[
    row!(
        "Steps",
        |told| Some(told.request.steps.to_string()),
        |told, text| whole(text, 1..=1000) => told.request.steps
    ),
    row!(
        "Sampler",
        |told| word(&told.request.sampler_name),
        |told, text| known_sampler(text) => told.request.sampler_name
    ),
    row!(
        "Schedule type",
        |told| word(&told.request.scheduler),
        |told, text| word(&schedule(text)) => told.request.scheduler
    ),
    row!(
        "CFG scale",
        |told| Some(told.request.cfg_scale.to_string()),
        |told, text| number(text, 0.0..=100.0) => told.request.cfg_scale
    ),
    row!(
        "Image CFG scale",
        |told| told.begun.as_ref()?.image_cfg_scale.map(|scale| scale.to_string()),
        |told, text| number(text, 0.0..=100.0).map(Some) => told.begun().image_cfg_scale
    ),
    row!(
        "Seed",
        |told| Some(told.request.seed.to_string()),
        |told, text| whole(text, -1..=i64::MAX) => told.request.seed
    ),
    row!(
        "Face restoration",
        |told| told.request.restore_faces.then(|| told.request.face_restoration_model.clone()),
        |told, text| engine(text).map(|name| (true, name))
            => (told.request.restore_faces, told.request.face_restoration_model)
    ),
    row!(
        "Size",
        |told| Some(format!("{}x{}", told.request.width?, told.request.height?)),
        |told, text| size(text).map(|(width, height)| (Some(width), Some(height)))
            => (told.request.width, told.request.height)
    ),
    row!(
        "Model hash",
        |told| told.checkpoint.hash.clone(),
        |told, text| Some(word(text)) => told.checkpoint.hash
    ),
    row!("Model", |told| told.checkpoint.name.clone(), |told, text| Some(word(text)) => told.checkpoint.name),
    row!("VAE hash", |told| told.vae.hash.clone(), |told, text| Some(word(text)) => told.vae.hash),
    row!("VAE", |told| told.vae.name.clone(), |told, text| vae(text).map(Some) => told.vae.name),
    row!(
        "Variation seed",
        |told| is_varied(told).then(|| told.request.subseed.to_string()),
        |told, text| whole(text, -1..=i64::MAX) => told.request.subseed
    ),
    row!(
        "Variation seed strength",
        |told| is_varied(told).then(|| told.request.subseed_strength.to_string()),
        |told, text| number(text, 0.0..=1.0) => told.request.subseed_strength
    ),
    row!(
        "Seed resize from",
        |told| is_resized(told)
            .then(|| format!("{}x{}", told.request.seed_resize_from_w, told.request.seed_resize_from_h)),
        |told, text| sides(text, 8..=4096)
            => (told.request.seed_resize_from_w, told.request.seed_resize_from_h)
    ),
    row!(
        "Denoising strength",
        |told| told.request.denoising_strength.map(|strength| strength.to_string()),
        |told, text| number(text, 0.0..=1.0).map(Some) => told.request.denoising_strength
    ),
    row!(
        "Conditional mask weight",
        |told| unless(told.begun.as_ref()?.inpainting_mask_weight, 1.0).map(|weight| weight.to_string()),
        |told, text| number(text, 0.0..=1.0) => told.begun().inpainting_mask_weight
    ),
    row!(
        "Clip skip",
        |told| (told.request.clip_skip > 1).then(|| told.request.clip_skip.to_string()),
        |told, text| whole(text, 1..=12) => told.request.clip_skip
    ),
    row!(
        "ENSD",
        |told| (told.request.eta_noise_seed_delta != 0).then(|| told.request.eta_noise_seed_delta.to_string()),
        |told, text| whole(text, -MOST_EXACT..=MOST_EXACT) => told.request.eta_noise_seed_delta
    ),
    // A1111 does not write its "GPU".
    row!(
        "RNG",
        |told| Some(told.request.rng.name().to_uppercase()),
        |told, text| rng(text) => told.request.rng
    ),
    row!("Tiling", |told| flag(told.request.tiling), |told, text| truth(text) => told.request.tiling),
    // Hires fix.
    row!(
        "Hires checkpoint",
        |told| told.request.hr_checkpoint_name.clone(),
        |told, text| Some(word(text)) => told.request.hr_checkpoint_name
    ),
    row!(
        "Hires sampler",
        |told| told.request.hr_sampler_name.clone(),
        |told, text| known_sampler(text).map(Some) => told.request.hr_sampler_name
    ),
    row!(
        "Hires prompt",
        |told| word(told.request.hr_prompt.first()),
        |told, text| prompt(text) => told.request.hr_prompt
    ),
    row!(
        "Hires negative prompt",
        |told| word(told.request.hr_negative_prompt.first()),
        |told, text| prompt(text) => told.request.hr_negative_prompt
    ),
    row!(
        "Hires CFG Scale",
        |told| told.request.hr_cfg.map(|scale| scale.to_string()),
        |told, text| number(text, 0.0..=100.0).map(Some) => told.request.hr_cfg
    ),
    row!(
        "Hires schedule type",
        |told| told.request.hr_scheduler.clone(),
        |told, text| word(&schedule(text)).map(Some) => told.request.hr_scheduler
    ),
    row!(
        "Hires upscale",
        |told| is_scaled(told).then(|| told.request.hr_scale.to_string()),
        |told, text| Some((true, number(text, 0.0..=64.0)?)) => (told.request.enable_hr, told.request.hr_scale)
    ),
    row!(
        "Hires resize",
        |told| (told.request.enable_hr && !is_scaled(told))
            .then(|| format!("{}x{}", told.request.hr_resize_x, told.request.hr_resize_y)),
        |told, text| sides(text, 0..=16_384).map(|(x, y)| (true, x, y))
            => (told.request.enable_hr, told.request.hr_resize_x, told.request.hr_resize_y)
    ),
    row!(
        "Hires steps",
        |told| unless(told.request.hr_second_pass_steps, 0).map(|steps| steps.to_string()),
        |told, text| whole(text, 0..=1000) => told.request.hr_second_pass_steps
    ),
    row!(
        "Hires upscaler",
        |told| told.request.enable_hr.then(|| told.request.hr_upscaler.clone()),
        |told, text| engine(text).map(|name| (true, name))
            => (told.request.enable_hr, told.request.hr_upscaler)
    ),
    // What it began with.
    row!(
        "Mask mode",
        |told| mask(told).filter(|begun| begun.inpainting_mask_invert == 1).map(|_| INVERTED.to_owned()),
        |told, text| (text == INVERTED).then_some(1) => told.begun().inpainting_mask_invert
    ),
    row!(
        "Mask blur",
        |told| mask(told).filter(|begun| has_one_blur(begun)).and_then(|begun| unless(begun.mask_blur_x, 0.0)).map(|blur| blur.to_string()),
        |told, text| number(text, 0.0..=LARGEST_BLUR).map(|blur| (blur, blur))
            => (told.begun().mask_blur_x, told.begun().mask_blur_y)
    ),
    row!(
        "Inpaint area",
        |told| only_masked(told).map(|_| ONLY_MASKED.to_owned()),
        |told, text| (text == ONLY_MASKED).then_some(true) => told.begun().inpaint_full_res
    ),
    row!(
        "Masked area padding",
        |told| only_masked(told).map(|begun| begun.inpaint_full_res_padding.to_string()),
        |told, text| whole(text, 0..=65_536) => told.begun().inpaint_full_res_padding
    ),
    row!(
        "Masked content",
        |told| mask(told).and_then(|begun| content(begun.inpainting_fill)),
        |told, text| content_of(text) => told.begun().inpainting_fill
    ),
    row!(
        "Soft inpainting enabled",
        |told| soft(told).map(|_| "True".to_owned()),
        |told, text| truth(text).filter(|is_on| *is_on).map(|_| *told.soft()) => *told.soft()
    ),
    row!(
        "Soft inpainting schedule bias",
        |told| soft(told).map(|soft| soft.mask_blend_power.to_string()),
        |told, text| number(text, 0.0..=8.0) => told.soft().mask_blend_power
    ),
    row!(
        "Soft inpainting preservation strength",
        |told| soft(told).map(|soft| soft.mask_blend_scale.to_string()),
        |told, text| number(text, 0.0..=8.0) => told.soft().mask_blend_scale
    ),
    row!(
        "Soft inpainting transition contrast boost",
        |told| soft(told).map(|soft| soft.inpaint_detail_preservation.to_string()),
        |told, text| number(text, 1.0..=32.0) => told.soft().inpaint_detail_preservation
    ),
    row!(
        "Soft inpainting mask influence",
        |told| soft(told).map(|soft| soft.composite_mask_influence.to_string()),
        |told, text| number(text, 0.0..=1.0) => told.soft().composite_mask_influence
    ),
    row!(
        "Soft inpainting difference threshold",
        |told| soft(told).map(|soft| soft.composite_difference_threshold.to_string()),
        |told, text| number(text, 0.0..=8.0) => told.soft().composite_difference_threshold
    ),
    row!(
        "Soft inpainting difference contrast",
        |told| soft(told).map(|soft| soft.composite_difference_contrast.to_string()),
        |told, text| number(text, 0.0..=8.0) => told.soft().composite_difference_contrast
    ),
    // Networks.
    row!(
        "Hypernet",
        |told| told.hypernetwork.as_ref().map(|(name, _)| name.clone()),
        |told, text| Some(Some((hypernetwork(text).to_owned(), "1.0".to_owned()))) => told.hypernetwork
    ),
    row!(
        "Hypernet strength",
        |told| told.hypernetwork.as_ref().map(|(_, strength)| strength.clone()),
        |told, text| word(text) => told.hypernetwork.as_mut()?.1
    ),
    row!("Lora hashes", |told| word(&told.lora_hashes), |told, text| word(text) => told.lora_hashes),
    // The text encoder.
    row!(
        "Old prompt editing timelines",
        |told| flag(told.request.use_old_scheduling),
        |told, text| truth(text) => told.request.use_old_scheduling
    ),
    row!("TI hashes", |told| word(&told.embedding_hashes), |told, text| word(text) => told.embedding_hashes),
    row!(
        "Emphasis",
        |told| emphasis(told.request.emphasis),
        |told, text| emphasis_of(text) => told.request.emphasis
    ),
    // The sampler.
    row!(
        "Noise multiplier",
        |told| told.begun.as_ref()?.initial_noise_multiplier.and_then(|number| unless(number, 1.0)).map(|number| number.to_string()),
        |told, text| number(text, 0.0..=10.0).map(Some) => told.begun().initial_noise_multiplier
    ),
    row!(
        "Noise Schedule",
        |told| unless(told.request.sd_noise_schedule, NoiseSchedule::Default).map(|kind| kind.name().to_owned()),
        |told, text| one_of(text, &NoiseSchedule::ALL, NoiseSchedule::name) => told.request.sd_noise_schedule
    ),
    row!(
        "Discard penultimate sigma",
        |told| flag(told.request.always_discard_next_to_last_sigma),
        |told, text| truth(text) => told.request.always_discard_next_to_last_sigma
    ),
    row!(
        "Schedule min sigma",
        |told| unless(told.request.sigma_min, 0.0).map(|sigma| sigma.to_string()),
        |told, text| number(text, 0.0..=10_000.0) => told.request.sigma_min
    ),
    row!(
        "Schedule max sigma",
        |told| unless(told.request.sigma_max, 0.0).map(|sigma| sigma.to_string()),
        |told, text| number(text, 0.0..=10_000.0) => told.request.sigma_max
    ),
    row!(
        "Schedule rho",
        |told| unless(told.request.rho, 0.0).map(|rho| rho.to_string()),
        |told, text| number(text, 0.0..=100.0) => told.request.rho
    ),
    row!(
        "Beta schedule alpha",
        |told| has_shape(told).then(|| told.request.beta_dist_alpha.to_string()),
        |told, text| number(text, 0.01..=10.0) => told.request.beta_dist_alpha
    ),
    row!(
        "Beta schedule beta",
        |told| has_shape(told).then(|| told.request.beta_dist_beta.to_string()),
        |told, text| number(text, 0.01..=10.0) => told.request.beta_dist_beta
    ),
    row!(
        "SGM noise multiplier",
        |told| flag(told.request.sgm_noise_multiplier),
        |told, text| truth(text) => told.request.sgm_noise_multiplier
    ),
    row!(
        "Extra noise",
        |told| unless(told.begun.as_ref()?.img2img_extra_noise, 0.0).map(|noise| noise.to_string()),
        |told, text| number(text, 0.0..=10.0) => told.begun().img2img_extra_noise
    ),
    row!(
        "Eta",
        |told| told.request.eta.filter(|_| !has_timesteps(told)).map(|eta| eta.to_string()),
        |told, text| number(text, 0.0..=1.0).map(Some) => told.request.eta
    ),
    row!(
        "Eta DDIM",
        |told| told.request.eta.filter(|_| has_timesteps(told)).map(|eta| eta.to_string()),
        |told, text| number(text, 0.0..=1.0).map(Some) => told.request.eta
    ),
    row!(
        "Sigma churn",
        |told| unless(told.request.s_churn, 0.0).map(|churn| churn.to_string()),
        |told, text| number(text, 0.0..=100.0) => told.request.s_churn
    ),
    row!(
        "Sigma tmin",
        |told| unless(told.request.s_tmin, 0.0).map(|sigma| sigma.to_string()),
        |told, text| number(text, 0.0..=10_000.0) => told.request.s_tmin
    ),
    row!(
        "Sigma tmax",
        |told| unless(told.request.s_tmax, 0.0).map(|sigma| sigma.to_string()),
        |told, text| number(text, 0.0..=10_000.0) => told.request.s_tmax
    ),
    row!(
        "Sigma noise",
        |told| unless(told.request.s_noise, 1.0).map(|noise| noise.to_string()),
        |told, text| number(text, 0.0..=10.0) => told.request.s_noise
    ),
    // A1111 1.10.1 reads these and forgets to write them.
    row!(
        "UniPC variant",
        |told| unless(told.request.uni_pc_variant, UniPcVariant::default()).map(|kind| kind.name().to_owned()),
        |told, text| one_of(text, &UniPcVariant::ALL, UniPcVariant::name) => told.request.uni_pc_variant
    ),
    row!(
        "UniPC skip type",
        |told| {
            unless(told.request.uni_pc_skip_type, UniPcSkipType::default()).map(|kind| kind.name().to_owned())
        },
        |told, text| one_of(text, &UniPcSkipType::ALL, UniPcSkipType::name) => told.request.uni_pc_skip_type
    ),
    row!(
        "UniPC order",
        |told| unless(told.request.uni_pc_order, 3).map(|order| order.to_string()),
        |told, text| whole(text, 1..=50) => told.request.uni_pc_order
    ),
    row!(
        "UniPC lower order final",
        |told| (!told.request.uni_pc_lower_order_final).then(|| "False".to_owned()),
        |told, text| truth(text) => told.request.uni_pc_lower_order_final
    ),
    // Guidance: another checkpoint goes on in the middle of it.
    row!(
        "Refiner",
        |told| told.request.refiner_checkpoint.clone(),
        |told, text| Some(word(text)) => told.request.refiner_checkpoint
    ),
    row!(
        "Refiner switch at",
        |told| told.request.refiner_switch_at.map(|share| share.to_string()),
        |told, text| Some(Some(number(text, 0.0..=1.0)?)) => told.request.refiner_switch_at
    ),
    row!(
        "Skip Early CFG",
        |told| unless(told.request.skip_early_cond, 0.0).map(|share| share.to_string()),
        |told, text| number(text, 0.0..=1.0) => told.request.skip_early_cond
    ),
    row!(
        "NGMS",
        |told| unless(told.request.s_min_uncond, 0.0).map(|sigma| sigma.to_string()),
        |told, text| number(text, 0.0..=10_000.0) => told.request.s_min_uncond
    ),
    row!(
        "NGMS all steps",
        |told| flag(told.request.s_min_uncond_all),
        |told, text| truth(text) => told.request.s_min_uncond_all
    ),
    row!(
        "Pad conds",
        |told| flag(told.request.pad_cond_uncond),
        |told, text| truth(text) => told.request.pad_cond_uncond
    ),
    row!(
        "Pad conds v0",
        |told| flag(told.request.pad_cond_uncond_v0),
        |told, text| truth(text) => told.request.pad_cond_uncond_v0
    ),
    // The VAE.
    row!(
        "VAE Decoder",
        |told| decoder(told.request.sd_vae_decode_method),
        |told, text| decoder_of(text) => told.request.sd_vae_decode_method
    ),
    // Ours.
    row!(
        "Init image",
        |told| told.begun.as_ref()?.init_images.first()?.blob.clone(),
        |told, text| blob(text).map(|image| vec![image]) => told.begun().init_images
    ),
    row!(
        "SD upscale overlap",
        |told| grid(told).map(|sd| sd.overlap.to_string()),
        |told, text| whole(text, 0..=1024) => told.sd_upscale().overlap
    ),
    row!(
        "SD upscale upscaler",
        |told| grid(told).map(|sd| sd.upscaler.clone()),
        |told, text| engine(text) => told.sd_upscale().upscaler
    ),
    row!(
        "SD upscale scale factor",
        |told| sd_upscale(told).map(|sd| sd.scale_factor.to_string()),
        |told, text| number(text, 1.0..=8.0) => told.sd_upscale().scale_factor
    ),
    row!(
        "SD upscale prompts",
        |told| sd_upscale(told).and_then(|sd| prompts_of_tiles(&sd.prompts)),
        |told, text| prompts_of_tiles_of(text) => told.sd_upscale().prompts
    ),
    row!(
        "Ultimate SD upscale upscaler",
        |told| in_parts(told).map(|sd| sd.upscaler.clone()),
        |told, text| Some((engine(text)?, RedrawMode::Linear))
            => (told.sd_upscale().upscaler, told.sd_upscale().redraw)
    ),
    row!(
        "Ultimate SD upscale tile_width",
        |told| in_parts(told).and(told.request.width).map(|side| side.to_string()),
        |told, text| Some(Some(side(text)?)) => told.request.width
    ),
    row!(
        "Ultimate SD upscale tile_height",
        |told| in_parts(told).and(told.request.height).map(|side| side.to_string()),
        |told, text| Some(Some(side(text)?)) => told.request.height
    ),
    row!(
        "Ultimate SD upscale mask_blur",
        |told| in_parts(told).map(|sd| sd.mask_blur.to_string()),
        |told, text| number(text, 0.0..=256.0) => told.sd_upscale().mask_blur
    ),
    row!(
        "Ultimate SD upscale padding",
        |told| in_parts(told).map(|sd| sd.padding.to_string()),
        |told, text| whole(text, 0..=1024) => told.sd_upscale().padding
    ),
    row!(
        "Ultimate SD upscale redraw",
        |told| in_parts(told).map(|sd| sd.redraw.name().to_owned()),
        |told, text| one_of(text, &RedrawMode::ALL, RedrawMode::name) => told.sd_upscale().redraw
    ),
    row!(
        "Ultimate SD upscale seams",
        |told| seams(told).map(|sd| sd.seams.name().to_owned()),
        |told, text| one_of(text, &SeamFixMode::ALL, SeamFixMode::name) => told.sd_upscale().seams
    ),
    row!(
        "Ultimate SD upscale seams width",
        |told| seams(told).map(|sd| sd.seams_width.to_string()),
        |told, text| whole(text, 8..=1024) => told.sd_upscale().seams_width
    ),
    row!(
        "Ultimate SD upscale seams denoise",
        |told| seams(told).map(|sd| sd.seams_denoise.to_string()),
        |told, text| number(text, 0.0..=1.0) => told.sd_upscale().seams_denoise
    ),
    row!(
        "Ultimate SD upscale seams mask_blur",
        |told| seams(told).map(|sd| sd.seams_mask_blur.to_string()),
        |told, text| number(text, 0.0..=256.0) => told.sd_upscale().seams_mask_blur
    ),
    row!(
        "Ultimate SD upscale seams padding",
        |told| seams(told).map(|sd| sd.seams_padding.to_string()),
        |told, text| whole(text, 0..=1024) => told.sd_upscale().seams_padding
    ),
    row!(
        "Outpaint",
        |told| told.outpaint.as_ref().map(|outpaint| outpaint.method.name().to_owned()),
        |told, text| one_of(text, &OutpaintMethod::ALL, OutpaintMethod::name) => told.outpaint().method
    ),
    row!(
        "Outpaint margins",
        |told| told.outpaint.as_deref().map(margins),
        |told, text| margins_of(text)
            => [told.outpaint().left, told.outpaint().right, told.outpaint().up, told.outpaint().down]
    ),
    row!(
        "Fall-off exponent",
        |told| unless(told.outpaint.as_ref()?.noise_q, 1.0).map(|exponent| exponent.to_string()),
        |told, text| number(text, 0.0..=4.0) => told.outpaint().noise_q
    ),
    row!(
        "Color variation",
        |told| unless(told.outpaint.as_ref()?.color_variation, 0.05).map(|share| share.to_string()),
        |told, text| number(text, 0.0..=1.0) => told.outpaint().color_variation
    ),
    row!(
        "Mask",
        |told| mask(told)?.mask.as_ref()?.images().first()?.blob.clone(),
        |told, text| blob(text).map(|mask| Some(mask.into())) => told.begun().mask
    ),
    row!(
        "Mask blur x",
        |told| mask(told).filter(|begun| !has_one_blur(begun)).map(|begun| begun.mask_blur_x.to_string()),
        |told, text| number(text, 0.0..=LARGEST_BLUR) => told.begun().mask_blur_x
    ),
    row!(
        "Mask blur y",
        |told| mask(told).filter(|begun| !has_one_blur(begun)).map(|begun| begun.mask_blur_y.to_string()),
        |told, text| number(text, 0.0..=LARGEST_BLUR) => told.begun().mask_blur_y
    ),
    row!(
        "Mask rounding",
        |told| {
            mask(told)
                .filter(|begun| !begun.mask_round && begun.soft_inpainting.is_none())
                .map(|_| "False".to_owned())
        },
        |told, text| truth(text) => told.begun().mask_round
    ),
    row!(
        "Resize mode",
        |told| resize_mode(told.begun.as_ref()?.resize_mode),
        |told, text| resize_mode_of(text) => told.begun().resize_mode
    ),
    row!(
        "Fixed steps",
        |told| flag(told.begun.as_ref()?.img2img_fix_steps),
        |told, text| truth(text) => told.begun().img2img_fix_steps
    ),
    row!(
        "Color correction",
        |told| flag(told.begun.as_ref()?.img2img_color_correction),
        |told, text| truth(text) => told.begun().img2img_color_correction
    ),
    row!(
        "Background color",
        |told| background(&told.begun.as_ref()?.img2img_background_color),
        |told, text| colour(text) => told.begun().img2img_background_color
    ),
    row!(
        "Comma padding backtrack",
        |told| backtrack(told.request.comma_padding_backtrack),
        |told, text| whole(text, 0..=74) => told.request.comma_padding_backtrack
    ),
    row!(
        "Face restoration weight",
        |told| told.request.restore_faces.then(|| unless(told.request.code_former_weight, 0.5))?.map(|weight| weight.to_string()),
        |told, text| number(text, 0.0..=1.0) => told.request.code_former_weight
    ),
    row!("Tiling x", |told| flag(told.request.tiling_x), |told, text| truth(text) => told.request.tiling_x),
    row!("Tiling y", |told| flag(told.request.tiling_y), |told, text| truth(text) => told.request.tiling_y),
    row!(
        "Regions",
        |told| regions(&told.request.regions),
        |told, text| regions_of(text) => told.request.regions
    ),
    row!(
        "Loras",
        |told| loras(&told.request.loras),
        |told, text| loras_of(text) => told.request.loras
    ),
    row!(
        "Plugins",
        |told| plugins(&told.request.plugins, &told.plugin_versions),
        |told, text| plugins_of(text) => (told.request.plugins, told.plugin_versions)
    ),
    row!("Engines", |told| engines(&told.engines), |told, text| engines_of(text) => told.engines),
    row!(
        "Rewrite",
        |told| (!told.request.rewrite).then(|| "False".to_owned()),
        |told, text| truth(text) => told.request.rewrite
    ),
    // What was there before plugins rewrote the request, and who did it: no request says it.
    template!("Template", |told| told.rewriting.templates.get(ToldRewriting::PROMPT).cloned()),
    template!("Negative Template", |told| told.rewriting.templates.get(ToldRewriting::NEGATIVE).cloned()),
    template!("Templates", |told| told.rewriting.others()),
    template!("Rewriters", |told| plugins(&told.rewriting.rewriters, &told.rewriting.versions)),
    row!(
        "Precision",
        |told| precision(told.request.precision),
        |told, text| precision_of(text) => told.request.precision
    ),
    // As A1111 has sizes once it has read them, and as SD.Next and Fooocus call things.
    row!("Size-1", |_told| None, |told, text| side(text).map(Some) => told.request.width),
    row!("Size-2", |_told| None, |told, text| side(text).map(Some) => told.request.height),
    row!(
        "Hires resize-1",
        |_told| None,
        |told, text| whole(text, 0..=16_384).map(|x| (true, x)) => (told.request.enable_hr, told.request.hr_resize_x)
    ),
    row!(
        "Hires resize-2",
        |_told| None,
        |told, text| whole(text, 0..=16_384) => told.request.hr_resize_y
    ),
    row!("Scheduler", |_told| None, |told, text| word(&schedule(text)) => told.request.scheduler),
    row!(
        "Variation strength",
        |_told| None,
        |told, text| number(text, 0.0..=1.0) => told.request.subseed_strength
    ),
    row!("Version", |told| told.version.clone(), |told, text| Some(word(text)) => told.version),
];

/// What it began with, if it was drawn within a mask, its own or that of what was continued.
fn mask(told: &Told) -> Option<&Img2ImgParams> {
    told.begun.as_deref().filter(|begun| begun.mask.is_some() || told.outpaint.is_some())
}

/// How it was made larger and drawn anew, if it was.
fn sd_upscale(told: &Told) -> Option<&SdUpscaleParams> {
    told.begun.as_ref()?.sd_upscale.as_deref()
}

/// The same as A1111's script does it.
fn grid(told: &Told) -> Option<&SdUpscaleParams> {
    sd_upscale(told).filter(|sd| sd.redraw == RedrawMode::Grid)
}

/// And as the extension does.
fn in_parts(told: &Told) -> Option<&SdUpscaleParams> {
    sd_upscale(told).filter(|sd| sd.redraw != RedrawMode::Grid)
}

/// With something over its seams.
fn seams(told: &Told) -> Option<&SdUpscaleParams> {
    in_parts(told).filter(|sd| sd.seams != SeamFixMode::None)
}

/// How it was blended, if softly.
fn soft(told: &Told) -> Option<SoftInpaintingParams> {
    mask(told)?.soft_inpainting
}

/// The same, if only what is masked was drawn.
fn only_masked(told: &Told) -> Option<&Img2ImgParams> {
    mask(told).filter(|begun| begun.inpaint_full_res)
}

/// Whether A1111 has a key for the mask's blur.
fn has_one_blur(begun: &Img2ImgParams) -> bool {
    begun.mask_blur_x.to_bits() == begun.mask_blur_y.to_bits()
}

fn is_varied(told: &Told) -> bool {
    told.request.subseed_strength != 0.0
}

fn is_resized(told: &Told) -> bool {
    told.request.seed_resize_from_w > 0 && told.request.seed_resize_from_h > 0
}

/// Whether A1111 tells of the shape of the schedule Beta.
fn has_shape(told: &Told) -> bool {
    let of_hires = told.request.hr_scheduler.as_deref();
    let mut schedules = [Some(told.request.scheduler.as_str()), of_hires].into_iter().flatten();
    schedules.any(|name| Schedule::from_name(name) == Some(Schedule::Beta))
}

/// Whether its second pass goes by a factor.
fn is_scaled(told: &Told) -> bool {
    told.request.enable_hr && (told.request.hr_resize_x, told.request.hr_resize_y) == (0, 0)
}

/// Whether the sampler goes by timesteps: A1111 has another key for their eta.
fn has_timesteps(told: &Told) -> bool {
    Sampler::from_name(&told.request.sampler_name).is_some_and(|sampler| sampler.goes_by_timesteps())
}

/// Whether a key is written or read here, or by A1111 before it had those of now, however its letters are written.
pub(in crate::tasks) fn is_own_key(key: &str) -> bool {
    // What A1111's reader calls the prompts, styles and sizes that it reads apart.
    const READ_APART: [&str; 4] = ["Prompt", "Negative prompt", "Styles array", "Hires resize-2"];
    let own = ROWS.iter().map(|row| row.key).chain(HIRES).chain([OLD_HIRES]).chain(Infotext::EXACT_KEYS);
    let own = own.chain(READ_APART);
    own.into_iter().any(|own| own.eq_ignore_ascii_case(key))
}

/// All keys that are written or read.
#[cfg(test)]
pub(super) fn keys() -> impl Iterator<Item = &'static str> {
    ROWS.iter().map(|row| row.key)
}

/// The text of a picture.
pub(in crate::tasks) fn write(told: &Told) -> Infotext {
    let value = |row: &Row| Some((row.key.to_owned(), (row.write)(told)?));
    Infotext {
        prompt: told.request.prompt.first().to_owned(),
        negative_prompt: told.request.negative_prompt.first().to_owned(),
        fields: ROWS.iter().filter_map(value).collect(),
    }
}

/// What a text tells, and the pairs in it of which a request can say nothing.
pub(in crate::tasks) fn read(text: &str) -> (Told, Vec<(String, String)>) {
    let text = forms::parse(text);
    let mut told = Told { version: text.get("Version").map(str::to_owned), ..Told::default() };
    if told.is_ours() {
        told.request.precision = Precision::F32;
    }
    told.request.prompt = text.prompt.into();
    told.request.negative_prompt = text.negative_prompt.into();
    let mut others = Vec::new();
    // Where there is no second pass, nothing is said of it; of those of old the sizes are not as they are now.
    let has = |keys: &[&str]| text.fields.iter().any(|(key, _)| keys.contains(&key.as_str()));
    let (is_hires, is_old) = (has(&HIRES), has(&[OLD_HIRES]));
    let is_said = |key: &str| {
        (is_hires && !is_old || !key.starts_with("Hires ")) && !(is_old && key == "Denoising strength")
    };
    for (key, value) in text.fields {
        let row = ROWS.iter().find(|row| row.key == key && is_said(&key));
        if row.and_then(|row| (row.read)(&mut told, &value)).is_none() {
            others.push((key, value));
        }
    }
    others.extend(versions::as_it_was(&mut told));
    if is_hires && !told.request.enable_hr {
        let strength = told.request.denoising_strength.take();
        others.extend(strength.map(|strength| ("Denoising strength".to_owned(), strength.to_string())));
    }
    if told.request.denoising_strength.is_some() && !told.request.enable_hr {
        told.begun();
    }
    (told, others)
}

#[cfg(test)]
mod tests {
    use latentd_client::protocol::{PluginParams, Rng, Txt2ImgParams};
    use rmpv::Value;

    use super::*;

    #[test]
    fn what_is_said_is_asked_for() {
        let text = "a cat, sitting\nNegative prompt: dog\nSteps: 7, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: \
                    5.5, Seed: 12, Size: 64x96, Model hash: 0123456789, Model: good, Clip skip: 2, RNG: CPU, \
                    Pad conds: True, Precision: bf16, Version: latentd v9";
        let expected = Txt2ImgParams {
            prompt: "a cat, sitting".into(),
            negative_prompt: "dog".into(),
            seed: 12,
            steps: 7,
            cfg_scale: 5.5,
            width: Some(64),
            height: Some(96),
            sampler_name: "DPM++ 2M".into(),
            scheduler: "Karras".into(),
            clip_skip: 2,
            pad_cond_uncond: true,
            rng: Rng::Cpu,
            precision: Precision::Bf16,
            ..Default::default()
        };
        let (told, others) = read(text);
        assert_eq!((&told.request, others), (&expected, vec![]));
        assert_eq!(write(&told).to_string(), text, "the order is A1111's");
    }

    #[test]
    fn what_is_not_said_is_left_to_its_default() {
        let a1111 = "a cat\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: -x, Size: 4x64, Clip skip: 0, Denoising strength: 1.4";
        let expected = Txt2ImgParams { prompt: "a cat".into(), ..Default::default() };
        let (told, others) = read(a1111);
        assert_eq!(told.request, expected);
        let left: Vec<&str> = others.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(left, ["Seed", "Size", "Clip skip", "Denoising strength"], "no request can say it");
        let (ours, _) = read("\nSteps: 20, Sampler: Euler a, Seed: 1, Version: latentd v0.1.0");
        assert_eq!(ours.request.precision, Precision::F32);
    }

    #[test]
    fn plugins_are_told_with_their_versions_and_asked_for_without() {
        let line = |plugins: &str| {
            let value = serde_json::Value::from(plugins);
            format!("\nSteps: 20, Sampler: Euler a, Seed: 1, Plugins: {value}, Version: latentd v9")
        };
        let text =
            line(r#"{"grain":{"params":{}},"vignette":{"version":"1.0.0","params":{"strength":0.5}}}"#);
        let (mut told, others) = read(&text);
        assert!(others.is_empty(), "{others:?}");
        let versions = told.plugin_versions.iter().map(|(name, version)| (name.as_str(), version.as_str()));
        assert_eq!(versions.collect::<Vec<_>>(), [("vignette", "1.0.0")]);
        let (_, pair) = text.split_once("Plugins: ").expect("it is there");
        assert!(write(&told).to_string().contains(pair), "{text}");
        let asked = told.clone().into_request(|_| false, |_| false).into_drawing().plugins;
        assert_eq!(asked.keys().collect::<Vec<_>>(), ["grain", "vignette"]);
        assert_eq!(asked["vignette"], PluginParams([("strength".to_owned(), 0.5.into())].into()));
        // What JSON cannot carry is not told.
        told.request
            .plugins
            .insert("paste".to_owned(), PluginParams([("image".to_owned(), Value::Binary(vec![]))].into()));
        assert!(!write(&told).to_string().contains("Plugins"));
        let deep = |levels: usize| {
            let (open, close) = ("[".repeat(levels - 1), "]".repeat(levels - 1));
            line(&format!(r#"{{"x":{{"params":{{"y":{open}{close}}}}}}}"#))
        };
        let many = (0..33).map(|place| format!(r#""p{place}":{{}}"#)).collect::<Vec<_>>().join(",");
        for (text, is_read) in [
            (line("{}"), true),
            (deep(59), true),
            (deep(60), false),
            (line(&format!("{{{many}}}")), false),
            (line(r#"{"x": 5}"#), false),
            (line(r#"{"x": {"params": [1]}}"#), false),
            (line("vignette"), false),
        ] {
            assert_eq!(read(&text).1.is_empty(), is_read, "{text}");
        }
    }

    #[test]
    fn what_is_written_here_is_no_key_of_others() {
        for own in ["Steps", "steps", "Size-1", "First pass size", "Exact prompt", "Plugins", "VERSION"] {
            assert!(is_own_key(own), "{own}");
        }
        assert!(!is_own_key("ADetailer model") && !is_own_key("Steps 2"));
    }

    #[test]
    fn each_key_is_one_row() {
        let mut keys: Vec<&str> = ROWS.iter().map(|row| row.key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), ROWS.len());
    }
}

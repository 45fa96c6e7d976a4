//! `txt2img`: text to pictures.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{
    Emphasis, ImageOut, NoiseSchedule, OnDisconnect, PluginLine, PluginParams, Prompt, RegionParams,
    UniPcSkipType, UniPcVariant, plugins,
};

/// What to draw. Names, meaning and defaults are A1111's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[allow(clippy::struct_excessive_bools, reason = "the fields are A1111's")]
pub struct Txt2ImgParams {
    /// What to draw, in A1111's grammar: emphasis (`(more)`, `[less]`, `(so much:1.3)`), BREAK, comments (`#` to the line's
    /// end), words that change from step to step (`[from:to:when]`, `[to:when]`, `[from::when]`; `when` with a point is a share
    /// of the steps, without one a step) or take turns (`[a|b]`), several prompts with weights (`a cat :1.2 AND a dog`), LoRAs (`<lora:NAME:STRENGTH>`, or text encoder and UNet apart: `<lora:NAME:TE:UNET>`, with `te=`, `unet=` and `dyn=`
    /// for the first so many ranks), hypernetworks (`<hypernet:NAME:STRENGTH>`) and embeddings by their names. What is not
    /// applied is told in the result's `notices`. A list has one text for each picture; networks are those of the first.
    pub prompt: Prompt,
    /// What to steer away from: words, emphasis, BREAK, comments, changes, turns and embeddings as in `prompt`.
    pub negative_prompt: Prompt,
    /// Parts of each picture that are told something else than `prompt`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub regions: Vec<RegionParams>,
    /// Styles by their names (`styles.list`), put around the prompts in this order: their texts take the place of `{prompt}` in
    /// them, or stand behind them, with a comma between.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(max = 1000)))]
    pub styles: Vec<String>,
    /// What brackets do; A1111's option of that name.
    #[serde(skip_serializing_if = "Emphasis::is_original")]
    pub emphasis: Emphasis,
    /// How many tokens back a comma may stand for a chunk of 75 to end there instead of within a phrase; 0 for none. A1111's
    /// option of that name.
    #[serde(skip_serializing_if = "is_usual_backtrack")]
    #[schemars(range(min = 0, max = 74))]
    pub comma_padding_backtrack: u32,
    /// Whether `when` in `[from:to:when]` is a share of the steps below 1 and a step else, as it was before A1111 1.6.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub use_old_scheduling: bool,
    /// Seed of the first image; image i of the request has seed + i, up to 2^63 - 1. -1 draws one and
    /// reports it.
    #[schemars(range(min = -1, max = 9_223_372_036_854_775_807_i64))]
    pub seed: i64,
    /// With `subseed_strength`: another seed, towards whose noise that of `seed` is turned. Then all images of the request
    /// have the same `seed`, and image i `subseed + i`. -1 draws one and reports it.
    #[schemars(range(min = -1, max = 9_223_372_036_854_775_807_i64))]
    pub subseed: i64,
    /// How far: 0 not at all, 1 to the picture of `subseed`. Needs a height of 16 or more.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub subseed_strength: f64,
    /// With `seed_resize_from_h`: the size at which the seed draws what should show in the middle of the picture, in pixels;
    /// what is beyond whole eighths does not count. 0 or less: the picture's own.
    #[schemars(range(min = -1, max = 4096))]
    pub seed_resize_from_w: i32,
    /// Rows, as `seed_resize_from_w`.
    #[schemars(range(min = -1, max = 4096))]
    pub seed_resize_from_h: i32,
    /// Sampler steps.
    #[schemars(range(min = 1, max = 1000))]
    pub steps: u32,
    /// Guidance scale; 1 leaves the negative prompt out, and takes half of the time, but with CFG++.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub cfg_scale: f64,
    /// How far `img2img` goes from the picture that it begins with, or the second pass of hires fix from that of the first: 0
    /// nowhere, 1 to where nothing of it is left; 0.75 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub denoising_strength: Option<f64>,
    /// Pixels in a row; if left out what the checkpoint's file says (`modelspec.resolution`), else 512.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 8, max = 4096), extend("multipleOf" = 8))]
    pub width: Option<u32>,
    /// Rows; if left out as `width`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 8, max = 4096), extend("multipleOf" = 8))]
    pub height: Option<u32>,
    /// The sampler. Joint names such as "DPM++ 2M Karras" set the scheduler too.
    pub sampler_name: String,
    /// The schedule of sigmas, by A1111's label ("SGM Uniform") or name ("sgm_uniform"); "Automatic" is the sampler's own.
    /// DDIM, DDIM CFG++, PLMS, UniPC, DPM fast and DPM adaptive have levels of their own.
    pub scheduler: String,
    /// How much of the noise that a step takes away is drawn anew, for samplers that do so. If left out the sampler's own: 1
    /// for ancestral and SDE samplers, 0 for DDIM, 0.3 for TCD.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub eta: Option<f64>,
    /// How much noise Euler, Heun and DPM2 add before their steps, over all of them.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub s_churn: f64,
    /// The lowest level at which they add it.
    #[schemars(range(min = 0.0, max = 10_000.0))]
    pub s_tmin: f64,
    /// The highest level at which they add it; 0 for all.
    #[schemars(range(min = 0.0, max = 10_000.0))]
    pub s_tmax: f64,
    /// What noise drawn on the way is multiplied by, for samplers that have it so: Euler, Heun and DPM2 with `s_churn`, DPM2 a,
    /// DPM++ 2S a, DPM fast, DPM adaptive and the SDE samplers.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub s_noise: f64,
    /// What is added to each seed for the noise drawn on the way: A1111's ENSD.
    #[schemars(range(min = -9_007_199_254_740_991_i64, max = 9_007_199_254_740_991_i64))]
    pub eta_noise_seed_delta: i64,
    /// The schedule's lowest level; 0 for the model's.
    #[schemars(range(min = 0.0, max = 10_000.0))]
    pub sigma_min: f64,
    /// The schedule's highest level; 0 for the model's.
    #[schemars(range(min = 0.0, max = 10_000.0))]
    pub sigma_max: f64,
    /// The exponent of the schedules Karras and Polyexponential; 0 for their own, 7 and 1.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub rho: f64,
    /// The first parameter of the schedule Beta.
    #[schemars(range(min = 0.01, max = 10.0))]
    pub beta_dist_alpha: f64,
    /// The second parameter of the schedule Beta.
    #[schemars(range(min = 0.01, max = 10.0))]
    pub beta_dist_beta: f64,
    /// Plans one step more and leaves out the level before the last, as some samplers always do.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub always_discard_next_to_last_sigma: bool,
    /// Multiplies the initial noise by √(1 + σ²) instead of σ.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub sgm_noise_multiplier: bool,
    /// For UniPC.
    pub uni_pc_variant: UniPcVariant,
    /// For UniPC.
    pub uni_pc_skip_type: UniPcSkipType,
    /// Predictions that a step of UniPC goes by; never more than there are steps.
    #[schemars(range(min = 1, max = 50))]
    pub uni_pc_order: u32,
    /// Whether UniPC's last steps go by fewer.
    pub uni_pc_lower_order_final: bool,
    /// Leaves out the negative prompt at each second model call below this level, which takes half of their time; 0 for never.
    /// For DDIM, DDIM CFG++, PLMS and UniPC it is a timestep.
    #[schemars(range(min = 0.0, max = 10_000.0))]
    pub s_min_uncond: f64,
    /// Leaves it out at each model call below that level.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub s_min_uncond_all: bool,
    /// Leaves out the negative prompt at this share of the model calls, from the first on; 0 for none.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub skip_early_cond: f64,
    /// The model's noise levels.
    pub sd_noise_schedule: NoiseSchedule,
    /// Images drawn at once.
    #[schemars(range(min = 1, max = 64))]
    pub batch_size: u32,
    /// Batches drawn one after the other.
    #[schemars(range(min = 1, max = 1000))]
    pub n_iter: u32,
    /// Which hidden state of the text encoder conditions: 1 the last, 2 the one before it.
    #[schemars(range(min = 1, max = 12))]
    pub clip_skip: u32,
    /// Pads the shorter of both prompts with empty chunks, A1111's option of that name. Off, as it is there by
    /// default, prompts of different length are encoded and used at their own.
    pub pad_cond_uncond: bool,
    /// Makes the negative prompt as long as the prompt by its last token again and again, or by cutting it, before
    /// `pad_cond_uncond`; A1111's option of that name, for the pictures of DDIM before 1.6.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub pad_cond_uncond_v0: bool,
    /// A checkpoint's name in the library, its path inside a models folder or the folder of checkpoints, the first 8 or
    /// more hex digits of its hash, or a name or path with a hash behind it, `NAME [HASH]`. A hash that is not known yet
    /// is computed while the job is "resolving"; a name that several files have is an error that says what to write for
    /// each. If left out: the configured one, else the first of the library that can be drawn with, else the built-in
    /// `latentd-demo`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
    /// The VAE: a name in the library, a path or a hash, as for `checkpoint`; "None" for the checkpoint's own; "Automatic"
    /// for the one whose file's name begins with the checkpoint's, where there is one, else the checkpoint's own. If left
    /// out: as the daemon is set, by default "Automatic".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vae: Option<String>,
    /// What makes the picture of the latents; A1111's option of that name.
    #[serde(skip_serializing_if = "VaeDecodeMethod::is_full")]
    pub sd_vae_decode_method: VaeDecodeMethod,
    /// LoRAs behind those that the prompt names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub loras: Vec<LoraParams>,
    /// Plugins that take part, by name, each with its parameters (`plugins.list`, `plugins.schema`):
    /// `{"vignette": {"strength": 0.5}}`.
    #[serde(deserialize_with = "plugins::by_name", skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub plugins: BTreeMap<String, PluginParams>,
    /// Versions of plugins that it wants, by name, where it does not want the highest that is there.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub plugin_versions: BTreeMap<String, String>,
    /// Whether plugins may rewrite the request before it is resolved (stage `request.rewrite`). `image.info` says false of a
    /// picture whose request was rewritten, if one of its plugins would do it again.
    #[serde(skip_serializing_if = "is_true")]
    pub rewrite: bool,
    /// Whether it is an error if something that is asked for is not applied: a LoRA that is not in the library or made for
    /// another model, and so on. If not, the result's `notices` tell of it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub strict: bool,
    /// A checkpoint that goes on where the own one ends, named as `checkpoint` is: with its own text encoder, and its own VAE where
    /// `vae` names none. LoRAs and hypernetworks are applied to both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refiner_checkpoint: Option<String>,
    /// The share of the way from noise to picture, in timesteps of the model, after which it does; 0.8 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub refiner_switch_at: Option<f64>,
    /// Hires fix: draws the picture once more, larger, over what was drawn at `width` and `height`. Fields that begin with `hr_`
    /// are of that second pass, and do nothing without it; `img2img` has none. A refiner goes on in it alone.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub enable_hr: bool,
    /// How many times as large.
    #[serde(skip_serializing_if = "is_usual_scale")]
    #[schemars(range(min = 0.0, max = 64.0))]
    pub hr_scale: f64,
    /// Pixels in a row instead, unless it and `hr_resize_y` are 0; with that 0 the ratio is kept, else what stands out is cut
    /// off. What is beyond whole eighths is left off.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0, max = 16_384))]
    pub hr_resize_x: u32,
    /// Rows, as `hr_resize_x`.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0, max = 16_384))]
    pub hr_resize_y: u32,
    /// Steps of the second pass, whatever `denoising_strength`; 0 for `steps`.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0, max = 1000))]
    pub hr_second_pass_steps: u32,
    /// What makes the first picture larger, by A1111's names: "Latent" and its kinds its latents; "None", "Lanczos" and
    /// "Nearest" its pixels; or an upscaler of a plugin, which `plugins.list` tells.
    #[serde(skip_serializing_if = "is_usual_upscaler")]
    #[schemars(length(max = 1000))]
    pub hr_upscaler: String,
    /// What to draw then, with networks of its own, which are applied instead of those of `prompt`; empty for `prompt`.
    #[serde(skip_serializing_if = "is_no_prompt")]
    pub hr_prompt: Prompt,
    /// What to steer away from then; empty for `negative_prompt`.
    #[serde(skip_serializing_if = "is_no_prompt")]
    pub hr_negative_prompt: Prompt,
    /// The sampler then; the same if left out, or "Use same sampler".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hr_sampler_name: Option<String>,
    /// The schedule then; the same if left out, or "Use same scheduler".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hr_scheduler: Option<String>,
    /// The checkpoint then, named as `checkpoint` is; the same if left out, or "Use same checkpoint".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hr_checkpoint_name: Option<String>,
    /// The guidance scale then; the same if left out. Forge's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub hr_cfg: Option<f64>,
    /// Gives back the pictures of the first pass too, those of a batch before those of its second. A1111's option of that name.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub save_images_before_highres_fix: bool,
    /// Restores faces in the pictures, before plugins have them and before the user's picture is laid over; those of the first of
    /// two passes stay as they were drawn.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub restore_faces: bool,
    /// By what, by A1111's name: "CodeFormer" or "GFPGAN", or another restorer of a plugin, which `plugins.list` tells. Does nothing
    /// without `restore_faces`.
    #[serde(skip_serializing_if = "is_usual_restorer")]
    #[schemars(length(min = 1, max = 1000))]
    pub face_restoration_model: String,
    /// How close CodeFormer stays to the picture: 0 changes most, 1 least. Restorers other than GFPGAN are told it.
    #[serde(skip_serializing_if = "is_usual_weight")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub code_former_weight: f64,
    /// Makes pictures that can be laid side by side: what is drawn goes on beyond each border with the other end.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tiling: bool,
    /// The same from the right to the left only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tiling_x: bool,
    /// The same from the bottom to the top only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tiling_y: bool,
    /// Where noise comes from.
    pub rng: Rng,
    /// What to compute in.
    pub precision: Precision,
    /// Seconds that the checkpoint stays in memory after this job, if nothing else draws with it and nobody has pinned it:
    /// 0 lets it go at once, -1 never for time's sake. If left out: as the daemon is set, by default -1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1.0, max = 31_536_000.0))]
    pub keep_alive: Option<f64>,
    /// How pictures come back.
    pub output: OutputParams,
    /// Pictures of the way there, as events. None if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preview: Option<PreviewParams>,
    /// What becomes of the job when the connection ends that asked for it.
    #[serde(skip_serializing_if = "OnDisconnect::is_keep")]
    pub on_disconnect: OnDisconnect,
}

impl Default for Txt2ImgParams {
    fn default() -> Self {
        Self {
            prompt: Prompt::default(),
            negative_prompt: Prompt::default(),
            regions: Vec::new(),
            styles: Vec::new(),
            emphasis: Emphasis::Original,
            comma_padding_backtrack: USUAL_BACKTRACK,
            use_old_scheduling: false,
            seed: -1,
            subseed: -1,
            subseed_strength: 0.0,
            seed_resize_from_w: -1,
            seed_resize_from_h: -1,
            steps: 20,
            cfg_scale: 7.0,
            denoising_strength: None,
            width: None,
            height: None,
            sampler_name: "Euler a".into(),
            scheduler: "Automatic".into(),
            eta: None,
            s_churn: 0.0,
            s_tmin: 0.0,
            s_tmax: 0.0,
            s_noise: 1.0,
            eta_noise_seed_delta: 0,
            sigma_min: 0.0,
            sigma_max: 0.0,
            rho: 0.0,
            beta_dist_alpha: 0.6,
            beta_dist_beta: 0.6,
            always_discard_next_to_last_sigma: false,
            sgm_noise_multiplier: false,
            uni_pc_variant: UniPcVariant::default(),
            uni_pc_skip_type: UniPcSkipType::default(),
            uni_pc_order: 3,
            uni_pc_lower_order_final: true,
            s_min_uncond: 0.0,
            s_min_uncond_all: false,
            skip_early_cond: 0.0,
            sd_noise_schedule: NoiseSchedule::default(),
            batch_size: 1,
            n_iter: 1,
            clip_skip: 1,
            pad_cond_uncond: false,
            pad_cond_uncond_v0: false,
            checkpoint: None,
            vae: None,
            sd_vae_decode_method: VaeDecodeMethod::Full,
            loras: Vec::new(),
            plugins: BTreeMap::new(),
            plugin_versions: BTreeMap::new(),
            rewrite: true,
            strict: false,
            refiner_checkpoint: None,
            refiner_switch_at: None,
            enable_hr: false,
            hr_scale: USUAL_SCALE,
            hr_resize_x: 0,
            hr_resize_y: 0,
            hr_second_pass_steps: 0,
            hr_upscaler: USUAL_UPSCALER.into(),
            hr_prompt: Prompt::default(),
            hr_negative_prompt: Prompt::default(),
            hr_sampler_name: None,
            hr_scheduler: None,
            hr_checkpoint_name: None,
            hr_cfg: None,
            save_images_before_highres_fix: false,
            restore_faces: false,
            face_restoration_model: USUAL_RESTORER.into(),
            code_former_weight: USUAL_WEIGHT,
            tiling: false,
            tiling_x: false,
            tiling_y: false,
            rng: Rng::default(),
            precision: Precision::default(),
            keep_alive: None,
            output: OutputParams::default(),
            preview: None,
            on_disconnect: OnDisconnect::Keep,
        }
    }
}

/// A1111's `comma_padding_backtrack`.
const USUAL_BACKTRACK: u32 = 20;

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it so")]
fn is_usual_backtrack(tokens: &u32) -> bool {
    *tokens == USUAL_BACKTRACK
}

/// A1111's `hr_scale`.
const USUAL_SCALE: f64 = 2.0;

/// A1111's `face_restoration_model`.
const USUAL_RESTORER: &str = "CodeFormer";

/// A1111's `code_former_weight`.
const USUAL_WEIGHT: f64 = 0.5;

/// What A1111 takes if no `hr_upscaler` is named.
const USUAL_UPSCALER: &str = "Latent";

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it so")]
fn is_usual_scale(scale: &f64) -> bool {
    scale.to_bits() == USUAL_SCALE.to_bits()
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it so")]
fn is_true(value: &bool) -> bool {
    *value
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it so")]
fn is_usual_weight(weight: &f64) -> bool {
    weight.to_bits() == USUAL_WEIGHT.to_bits()
}

fn is_usual_restorer(name: &str) -> bool {
    name == USUAL_RESTORER
}

fn is_usual_upscaler(name: &str) -> bool {
    name == USUAL_UPSCALER
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it so")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn is_no_prompt(prompt: &Prompt) -> bool {
    *prompt == Prompt::default()
}

/// A LoRA, or another file of its family (LoHa, LoKr, DoRA, IA3, GLoRA, OFT, BOFT, differences), and how strong.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoraParams {
    /// Its name in the library, or what its trainer called it (`ss_output_name`).
    #[schemars(length(min = 1, max = 1000))]
    pub name: String,
    /// Strength in the UNet; below 0 it does the opposite. If left out that of the text encoder, else 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1000.0, max = 1000.0))]
    pub unet: Option<f64>,
    /// Strength in the text encoder. If left out that of the UNet, else 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1000.0, max = 1000.0))]
    pub te: Option<f64>,
    /// Uses the first so many ranks of each layer; all if left out.
    #[serde(default, rename = "dyn", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub dynamic: Option<u32>,
}

impl LoraParams {
    /// Its strengths in the text encoder and in the UNet.
    pub fn strengths(&self) -> (f64, f64) {
        (self.te.or(self.unet).unwrap_or(1.0), self.unet.or(self.te).unwrap_or(1.0))
    }
}

/// What makes pictures of latents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VaeDecodeMethod {
    /// The VAE.
    #[default]
    Full,
    /// TAESD, a file of the library (`VAE-approx/taesd_decoder.pth`): much quicker, less exact. E_NOT_FOUND without it.
    #[serde(rename = "TAESD")]
    Taesd,
}

impl VaeDecodeMethod {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it so")]
    fn is_full(&self) -> bool {
        *self == Self::Full
    }
}

/// Where noise comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rng {
    /// What a CUDA card draws; A1111's "NV".
    #[default]
    #[serde(alias = "NV")]
    Nv,
    /// What torch draws on a CPU; A1111's "CPU".
    #[serde(alias = "CPU")]
    Cpu,
}

impl JsonSchema for Rng {
    fn schema_name() -> Cow<'static, str> {
        "Rng".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Where noise comes from. A1111's \"GPU\" is not among them: it is what \"nv\" draws, if the GPU is \
                            a CUDA card.",
            "oneOf": [
                {"const": "nv", "type": "string", "description": "What a CUDA card draws."},
                {"const": "cpu", "type": "string", "description": "What torch draws on a CPU."},
                {"enum": ["NV", "CPU"], "type": "string", "description": "The same, as A1111 writes them."},
            ],
        })
    }
}

impl Rng {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nv => "nv",
            Self::Cpu => "cpu",
        }
    }
}

/// What to compute in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// As the daemon is set: by default bf16 where the processor is known to be quicker in it (AMX's tiles, Zen 4's
    /// products of pairs), else f32. `latentd doctor` says which and why.
    #[default]
    Auto,
    /// 32-bit floats.
    F32,
    /// bfloat16 with f32 sums: half the memory; slower than f32 where the processor has no quick product for it. Another
    /// kernel set (`latentd doctor` names it) gives other bytes.
    Bf16,
    /// 16-bit floats. Not in this build: E_UNSUPPORTED.
    F16,
}

/// How pictures come back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OutputParams {
    /// As what.
    pub format: OutputFormat,
    /// For "file": an absolute, existing folder. If left out: `outputs` in the daemon's state folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<String>,
}

/// The form of a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OutputFormat {
    /// PNG bytes in the answer.
    #[default]
    Png,
    /// 8-bit pixels in the answer.
    Raw,
    /// A PNG file; its path in the answer. Where its folder fails once it is drawn, it is in the daemon's own folder, and
    /// where that fails too, in the answer as PNG; the result's `notices` say which and why.
    File,
    /// JPEG bytes in the answer: quality 80 as A1111 saves, colours at half size. Holds about 28,000 characters of
    /// prompts; more is refused.
    Jpeg,
    /// WebP bytes in the answer, without loss.
    Webp,
}

/// Pictures of the way there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PreviewParams {
    /// Steps from one preview to the next.
    #[schemars(range(min = 1, max = 1000))]
    pub every: u32,
    /// How they are made.
    pub kind: PreviewKind,
}

impl Default for PreviewParams {
    fn default() -> Self {
        Self { every: 1, kind: PreviewKind::Latent }
    }
}

/// How previews are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PreviewKind {
    /// A linear map of the latents, at 1/8 of the size; costs next to nothing.
    #[default]
    Latent,
    /// By TAESD, at the picture's size. Where the library has none, a notice says so, and previews are as for "latent".
    Taesd,
    /// By the VAE, as the picture will be: each takes as long as decoding that. Where there is no memory for it beside the rest, a
    /// notice says so, and previews are as for "latent".
    Full,
}

/// What was drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Txt2ImgResult {
    /// The pictures, `n_iter * batch_size` of them.
    pub images: Vec<ImageOut>,
    /// The job that drew them.
    pub job: String,
    /// What was computed in: "f32" or "bf16".
    #[serde(default)]
    pub precision: String,
    /// Where the time went.
    pub timings: Timings,
    /// Seconds that each plugin took, of those that took part; within those of `timings`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub plugin_timings: BTreeMap<String, f64>,
    /// What plugins logged while it was drawn, at most 100 lines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plugin_log: Vec<PluginLine>,
    /// Pictures that plugins left beside the results.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
    /// What the person who asked should know: that only the demo model was there to draw with; what was asked for and not
    /// applied (a network that is not there or made for another model, with the number of its tensors and the first); or that files could not be written where they should be, why, and where they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
}

/// A picture that a plugin left beside the results: a detected map, a mask, how it was before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Artifact {
    /// The plugin's name.
    pub plugin: String,
    /// What it is, in the plugin's words.
    pub name: String,
    /// Which of `images` it belongs to; all of them if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<u32>,
    /// The picture: `raw` of 1, 3 or 4 channels, a PNG file as `path`, or `png`, by what `output.format` says. Always lossless.
    pub picture: ImageOut,
}

/// Seconds spent in each stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Timings {
    /// Waiting for its turn.
    pub queue_s: f64,
    /// Reading the checkpoint; near 0 when it was in memory.
    pub load_s: f64,
    /// Prompts to conditioning.
    pub conditioning_s: f64,
    /// The sampler's loop.
    pub denoise_s: f64,
    /// Latents to pixels.
    pub decode_s: f64,
    /// From its turn to the result, encoding and writing included.
    pub total_s: f64,
}

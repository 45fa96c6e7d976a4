//! Flags of `generate` for a second, larger pass: hires fix.

use clap::Args;
use latentd_client::protocol::Txt2ImgParams;

/// Fields of the request as flags. What is left out has the daemon's default.
#[derive(Debug, Args)]
#[command(next_help_heading = "Hires fix")]
pub(super) struct HiresArgs {
    /// Draw the picture once more, larger, over what was drawn; how far from that says --denoising-strength
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    enable_hr: Option<bool>,
    /// How many times as large [default: 2]
    #[arg(long, value_name = "X")]
    hr_scale: Option<f64>,
    /// Pixels in a row instead; alone it keeps the ratio [default: 0]
    #[arg(long, value_name = "N")]
    hr_resize_x: Option<u32>,
    /// Rows instead; alone it keeps the ratio [default: 0]
    #[arg(long, value_name = "N")]
    hr_resize_y: Option<u32>,
    /// Steps of the second pass; 0 for --steps [default: 0]
    #[arg(long, value_name = "N")]
    hr_second_pass_steps: Option<u32>,
    /// What makes the first picture larger: Latent and its kinds, None, Lanczos, Nearest, or a plugin's upscaler [default: Latent]
    #[arg(long, value_name = "NAME")]
    hr_upscaler: Option<String>,
    /// What to draw then [default: the prompt]
    #[arg(long, value_name = "PROMPT", allow_hyphen_values = true)]
    hr_prompt: Option<String>,
    /// What to steer away from then [default: the negative prompt]
    #[arg(long, value_name = "PROMPT", allow_hyphen_values = true)]
    hr_negative_prompt: Option<String>,
    /// The sampler then [default: the same]
    #[arg(long, value_name = "NAME")]
    hr_sampler_name: Option<String>,
    /// The schedule of sigmas then [default: the same]
    #[arg(long, value_name = "NAME")]
    hr_scheduler: Option<String>,
    /// The checkpoint then [default: the same]
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    hr_checkpoint_name: Option<String>,
    /// The guidance scale then [default: the same]
    #[arg(long, value_name = "X")]
    hr_cfg: Option<f64>,
    /// Write the pictures of the first pass too
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    save_images_before_highres_fix: Option<bool>,
}

impl HiresArgs {
    /// The request with what was given.
    pub(super) fn over(&self, request: Txt2ImgParams) -> Txt2ImgParams {
        Txt2ImgParams {
            enable_hr: self.enable_hr.unwrap_or(request.enable_hr),
            hr_scale: self.hr_scale.unwrap_or(request.hr_scale),
            // A factor that is given is the newer wish.
            hr_resize_x: self.hr_resize_x.unwrap_or(if self.hr_scale.is_some() {
                0
            } else {
                request.hr_resize_x
            }),
            hr_resize_y: self.hr_resize_y.unwrap_or(if self.hr_scale.is_some() {
                0
            } else {
                request.hr_resize_y
            }),
            hr_second_pass_steps: self.hr_second_pass_steps.unwrap_or(request.hr_second_pass_steps),
            hr_upscaler: self.hr_upscaler.clone().unwrap_or(request.hr_upscaler),
            hr_prompt: self.hr_prompt.clone().map_or(request.hr_prompt, Into::into),
            hr_negative_prompt: self
                .hr_negative_prompt
                .clone()
                .map_or(request.hr_negative_prompt, Into::into),
            hr_sampler_name: self.hr_sampler_name.clone().or(request.hr_sampler_name),
            hr_scheduler: self.hr_scheduler.clone().or(request.hr_scheduler),
            hr_checkpoint_name: self.hr_checkpoint_name.clone().or(request.hr_checkpoint_name),
            hr_cfg: self.hr_cfg.or(request.hr_cfg),
            save_images_before_highres_fix: self
                .save_images_before_highres_fix
                .unwrap_or(request.save_images_before_highres_fix),
            ..request
        }
    }
}

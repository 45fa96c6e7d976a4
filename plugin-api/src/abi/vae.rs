//! The VAE, for stages that have it at hand.

use super::basic::{latentd_call, latentd_handle, latentd_status};

/// LATENTD_VAE: the VAE of the pass's model. At hand in LATENTD_IMAGE_POST, elsewhere UNSUPPORTED. Sizes are whole eighths, and no
/// picture is larger than one of the pass's: memory was planned for these.
#[repr(C)]
pub struct latentd_vae {
    /// sizeof of it, as the host knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// Latents (1, channels, h / 8, w / 8) in the model's scale of an image (1, 1 | 3, h, w): one of those that it may be, which the
    /// seed says, as a job with that seed begins with. INVALID: alpha, or a size that it cannot have. \[job\]
    pub encode_image: Option<
        unsafe extern "C" fn(
            call: *mut latentd_call,
            image: latentd_handle,
            seed: u64,
            latents: *mut latentd_handle,
        ) -> latentd_status,
    >,
    /// The image (1, 3, 8 · h, 8 · w) of latents (1, channels, h, w) in the model's scale, decoded as the request's own are.
    /// INVALID: NaN, or sizes that they cannot have. \[job\]
    pub decode_latents: Option<
        unsafe extern "C" fn(
            call: *mut latentd_call,
            latents: latentd_handle,
            image: *mut latentd_handle,
        ) -> latentd_status,
    >,
}

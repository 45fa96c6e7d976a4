//! Jobs within the job: drawn by the same daemon, while a function of the plugin waits.

use super::basic::{latentd_bytes, latentd_call, latentd_handle, latentd_list, latentd_status, latentd_text};

/// A sub-job that a plan tells of. It is resolved with the request, and all that it names is held: what is wrong in it refuses
/// the request, its memory is looked at, and its steps count in the job's progress.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_subplan {
    /// sizeof of it, as the plugin knows it.
    pub size: u32,
    /// The plugin's number for it, not 0: latentd_subjob names it. 64 are possible.
    pub key: u32,
    /// "txt2img" or "img2img".
    pub method: latentd_text,
    /// A merge patch over the job's own request as it was resolved, without its pictures, or in a method over what a request has
    /// that says nothing: maps merge, all else replaces, nil takes
    /// away; a key that begins with "/" is a JSON pointer, the only way to one element of a list. Fields that the method does not
    /// have are dropped. How many pictures there are, and what they begin with, is said where it is run.
    pub patch: latentd_bytes,
    /// Runs in the whole job, about.
    pub expected: u32,
    /// Runs in the whole job, at most; 0: as many as are expected.
    pub most: u32,
    /// Pictures of one run, at most; 0: 1.
    pub batch: u32,
    /// 0.
    pub reserved: u32,
    /// latentd_text: plugins of the request that stay out of it. The planner does, unless the patch names it.
    pub without: latentd_list,
}

/// A picture of a sub-job.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_subimage {
    /// Its prompt, with the networks of the planned one: others are planned with a key of their own. Data null: the plan's.
    pub prompt: latentd_text,
    /// The same of its negative prompt.
    pub negative: latentd_text,
    /// Its seed.
    pub seed: u64,
    /// Its variation's, where the request has a subseed_strength.
    pub subseed: u64,
    /// img2img: the image that it begins with, (1, 1 | 3 | 4, h, w).
    pub init: latentd_handle,
    /// img2img: where to draw, an image as large as `init`; 0: everywhere. All images have one, or none.
    pub mask: latentd_handle,
    /// The job's picture that it is for: of prompts that are lists the plan's is that one's.
    pub image: u32,
    /// 0.
    pub reserved: u32,
}

/// A sub-job that is run.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_subjob {
    /// sizeof of it, as the plugin knows it.
    pub size: u32,
    /// The plan's; 0: one that was not planned. It is resolved now, and there may be no room for it.
    pub key: u32,
    /// With key 0: as in latentd_subplan.
    pub method: latentd_text,
    /// Over the planned request. Of a planned one only what names nothing and takes no more memory may change: denoising_strength,
    /// steps (as many as planned at most), cfg_scale, subseed_strength, eta, s_churn, s_tmin, s_tmax, s_noise,
    /// eta_noise_seed_delta, mask_blur, mask_blur_x, mask_blur_y, mask_round, inpainting_fill, inpainting_mask_invert,
    /// inpaint_full_res_padding, initial_noise_multiplier, img2img_extra_noise, img2img_color_correction,
    /// img2img_background_color, inpainting_mask_weight. With key 0: over the job's own, as in latentd_subplan.
    pub patch: latentd_bytes,
    /// latentd_subimage: one picture each.
    pub images: latentd_list,
    /// Which share of what this call does it is, 0…1: told as `progress` of latentd_jobs is. 0: nothing is told.
    pub share: f64,
}

/// A picture that a sub-job drew.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_subpicture {
    /// What draws it alone.
    pub seed: u64,
    /// (1, 3 | 4, h, w).
    pub pixels: latentd_handle,
    /// What its file would tell.
    pub infotext: latentd_text,
}

/// What became of a sub-job.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct latentd_subresult {
    /// sizeof of it, as the plugin knows it.
    pub size: u32,
    /// OK, or why it failed: the job goes on.
    pub status: latentd_status,
    /// In words.
    pub error: latentd_text,
    /// latentd_subpicture, in the order of the images, unless another plugin changed their number.
    pub pictures: latentd_list,
    /// latentd_text: what it has to tell; it is not passed on by itself. Pictures that its plugins leave beside the results are
    /// dropped.
    pub notices: latentd_list,
}

/// LATENTD_SUBJOBS. At hand where no network is at work: in LATENTD_PASS_BEGIN, LATENTD_IMAGE_POST, LATENTD_BATCH_POST, and methods of kind "job"; elsewhere UNSUPPORTED. Its plugins have instances
/// of their own. Jobs lie 3 deep within one another at most. The job's own networks may leave memory for the time if there is no
/// room for both.
#[repr(C)]
pub struct latentd_subjobs {
    /// sizeof of it, as the host knows it.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// Draws one, and waits for it. Its failure is told in `result`. INVALID: it was not planned so, or was run as often as it
    /// may be; CANCELLED: the job was. \[job\]
    pub run: Option<
        unsafe extern "C" fn(
            call: *mut latentd_call,
            subjob: *const latentd_subjob,
            result: *mut latentd_subresult,
        ) -> latentd_status,
    >,
}

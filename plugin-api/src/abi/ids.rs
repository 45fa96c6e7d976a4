//! Ids of stages and services. Each ends in its revision; all are drafts until 1.0 is frozen.

/// The one symbol that a plugin exports.
pub const ENTRY_SYMBOL: &str = "latentd_entry";
/// The section that holds the manifest.
pub const SECTION: &str = ".latentd";

macro_rules! ids {
    ($($(#[doc = $text:literal])+ $name:ident = $id:literal;)+) => {
        $($(#[doc = $text])+ pub const $name: &str = $id;)+

        /// All ids: name in C, id, what it is.
        pub const IDS: &[(&str, &str, &str)] = &[$((stringify!($name), $id, concat!($($text),+)),)+];
    };
}

ids! {
    /// Extension of the plugin, latentd_plan_extension.
    LATENTD_JOB_PLAN = "job.plan/draft-1";
    /// Stage, latentd_conditioning_stage: what images are told. Slots: 2·i context, 2·i + 1 pooled of conds\[i\], each of the same
    /// size.
    LATENTD_CONDITIONING = "conditioning/draft-1";
    /// Stage, latentd_rewrite_stage: the request before it is resolved. Slot i: a patch that makes the i-th of it.
    LATENTD_REQUEST_REWRITE = "request.rewrite/draft-1";
    /// Stage, latentd_pass_stage: a pass begins. Slots: 2·i pixels, 2·i + 1 mask of pictures\[i\], each of the same size; a mask
    /// may be given where there is none.
    LATENTD_PASS_BEGIN = "pass.begin/draft-1";
    /// Stage, latentd_tags_stage: a tag of the prompt that the host does not know. Slot 0: whose it is.
    LATENTD_PROMPT_TAGS = "prompt.tags/draft-1";
    /// Stage, latentd_latents_stage: initial noise of unit variance, before it is scaled. Slot 0: the noise.
    LATENTD_NOISE_INIT = "noise.init/draft-1";
    /// Stage, latentd_latents_stage: what the sampler ended with. Slot 0: the latents.
    LATENTD_LATENT_FINAL = "latent.final/draft-1";
    /// Stage, latentd_denoise_stage: the sampler is about to ask the model. Slot 0: x.
    LATENTD_DENOISE_BEFORE = "denoise.before/draft-1";
    /// Stage, latentd_denoise_stage: the model is about to be asked; x has one entry per row. Slot 0: outputs, one per row, as
    /// samples: ask whoever lies inside with LATENTD_EVALS, as often as you like, of any rows. Replacing nothing, or SKIP,
    /// leaves it to them.
    LATENTD_DENOISE_WRAP = "denoise.wrap/draft-1";
    /// Stage, latentd_control_stage: the UNet is about to be asked, once for all rows of an evaluation; what is added within it
    /// is told.
    LATENTD_CONTROL_RESIDUALS = "control.residuals/draft-1";
    /// Stage, latentd_unet_block_stage: something goes by in the UNet. Slots: 0 h, 1 the skip, each of the same size.
    LATENTD_UNET_BLOCK = "unet.block/draft-1";
    /// Stage, latentd_attention_stage: a pass's model is ready; what rows look up otherwise is declared.
    LATENTD_ATTENTION = "attention/draft-1";
    /// Stage, latentd_denoise_stage: outputs are there, and what guidance makes of them. Slot 0: guided.
    LATENTD_DENOISE_COMBINE = "denoise.combine/draft-1";
    /// Stage, latentd_pictures_stage: all pictures of a pass as decoded, before they are laid over the user's.
    /// Slot i: pixels of pictures\[i\], of the same size.
    LATENTD_IMAGE_POST = "image.post/draft-1";
    /// Stage, latentd_pictures_stage: pictures as they are given back, after they are laid over the user's; all of a drawing in
    /// one call. Slot i: pixels of pictures\[i\], of any size up to 16384, with or without opacity.
    LATENTD_BATCH_POST = "batch.post/draft-1";
    /// Extension of the plugin, latentd_methods_extension: what the manifest's \[methods.NAME\] name.
    LATENTD_RPC_METHODS = "rpc.methods/draft-1";
    /// Stage, latentd_pictures_stage: pictures are finished, and their texts are written. `reply` in slot i: MessagePack, a map of
    /// texts: pairs for the text of pictures\[i\], in the map's order.
    LATENTD_INFOTEXT_WRITE = "infotext.write/draft-1";
    /// Stage, latentd_infotext_stage: a picture's text is read.
    LATENTD_INFOTEXT_PARSE = "infotext.parse/draft-1";
    /// Extension of the plugin, latentd_engine_stage: what the manifest's \[engines.KIND\] name.
    LATENTD_ENGINES = "engines/draft-1";
    /// Service, latentd_jobs.
    LATENTD_JOBS = "job/draft-1";
    /// Service, latentd_model_describe.
    LATENTD_MODELS = "model.describe/draft-1";
    /// Service, latentd_evals.
    LATENTD_EVALS = "model.eval/draft-1";
    /// Service, latentd_tensors.
    LATENTD_TENSORS = "tensor/draft-1";
    /// Service, latentd_texts.
    LATENTD_TEXTS = "text/draft-1";
    /// Service, latentd_vae.
    LATENTD_VAE = "vae/draft-1";
    /// Service, latentd_ops.
    LATENTD_OPS = "tensor.ops/draft-1";
    /// Service, latentd_library.
    LATENTD_LIBRARY = "library/draft-1";
    /// Service, latentd_networks.
    LATENTD_NETWORKS = "network/draft-1";
    /// Service, latentd_onnx.
    LATENTD_ONNX = "onnx/draft-1";
    /// Service, latentd_registry.
    LATENTD_REGISTRY = "engine/draft-1";
    /// Service, latentd_cache.
    LATENTD_CACHE = "cache/draft-1";
    /// Service, latentd_subjobs.
    LATENTD_SUBJOBS = "subjob/draft-1";
}

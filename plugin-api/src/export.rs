//! What [`export!`](crate::export!) makes of a plugin: the entry, a table for each stage, the manifest's section.
//!
//! A panic in any function of the plugin is a failure of that call.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::abi::{
    self, LATENTD_ABI_MAJOR, LATENTD_ABI_MINOR, LATENTD_OK, LATENTD_SKIP, latentd_attention,
    latentd_attention_stage, latentd_block, latentd_call, latentd_conditioning_stage, latentd_conds,
    latentd_control, latentd_control_stage, latentd_denoise, latentd_denoise_stage, latentd_infotext,
    latentd_infotext_stage, latentd_job, latentd_latents, latentd_latents_stage, latentd_method,
    latentd_methods_extension, latentd_pass, latentd_pass_stage, latentd_pictures, latentd_pictures_stage,
    latentd_plan, latentd_plan_extension, latentd_plugin_entry, latentd_rewrite, latentd_rewrite_stage,
    latentd_status, latentd_tag, latentd_tags_stage, latentd_text, latentd_unet_block_stage,
};
use crate::host;
use crate::job::{self, Job, Plan, Plugin};
use crate::methods::{self, MethodCall};
use crate::running::{instance, run};
use crate::stages::{
    self, Batch, Block, Combine, Conds, Controlling, Declaring, Denoising, Latents, Passing, Pictures,
    Reading, Rewrite, Tag, Wrap, Writing,
};

/// Makes a library of a type that is a [`Plugin`]: `export!(TYPE, "MANIFEST.toml", [STAGE, …])`. The manifest's path counts
/// from the source file; each stage is a trait of this crate that the type has. Kinds of engines stand behind:
/// `export!(TYPE, "MANIFEST.toml", [STAGE, …], engines: [Detector, …])`.
#[macro_export]
macro_rules! export {
    ($plugin:ty, $manifest:literal, [$($stage:ident),* $(,)?] $(, engines: [$($kind:ident),+ $(,)?])?) => {
        const _: () = {
            // Exported, so that no linker drops it.
            #[unsafe(no_mangle)]
            #[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__latentd"))]
            #[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".latentd"))]
            pub static latentd_manifest: [u8; include_bytes!($manifest).len()] = *include_bytes!($manifest);

            unsafe extern "C" fn extension(
                id: $crate::abi::latentd_text,
            ) -> *const ::std::ffi::c_void {
                $(
                    if $crate::export::is(id, $crate::export::$stage::<$plugin>::ID) {
                        return (&raw const *(&$crate::export::$stage::<$plugin>::TABLE)).cast();
                    }
                )*
                $(
                    if $crate::export::is(id, $crate::abi::LATENTD_ENGINES) {
                        const KINDS: &[$crate::engine_tables::Of<$plugin>] =
                            &[$($crate::engine_tables::$kind::<$plugin>::OF),+];
                        unsafe extern "C" fn describe(
                            call: *mut $crate::abi::latentd_call,
                            run: *const $crate::abi::latentd_engine_run,
                            plan: *const $crate::abi::latentd_plan,
                            facts: *mut $crate::abi::latentd_engine_facts,
                        ) -> $crate::abi::latentd_status {
                            // SAFETY: as the ABI says.
                            unsafe { $crate::engine_tables::describe(KINDS, call, run, plan, facts) }
                        }
                        unsafe extern "C" fn run(
                            instance: *mut ::std::ffi::c_void,
                            call: *mut $crate::abi::latentd_call,
                            run: *const $crate::abi::latentd_engine_run,
                            detected: ::std::option::Option<$crate::engine_tables::DetectedFn>,
                        ) -> $crate::abi::latentd_status {
                            // SAFETY: as the ABI says.
                            unsafe {
                                $crate::engine_tables::run_engine(KINDS, instance, call, run, detected)
                            }
                        }
                        static ENGINES: $crate::abi::latentd_engine_stage =
                            $crate::engine_tables::table(describe, run);
                        return (&raw const ENGINES).cast();
                    }
                )?
                let _ = id;
                ::std::ptr::null()
            }

            #[unsafe(no_mangle)]
            pub static latentd_entry: $crate::abi::latentd_plugin_entry =
                $crate::export::entry::<$plugin>(extension);
        };
    };
}

/// The entry of a plugin.
pub const fn entry<P: Plugin>(
    extension: unsafe extern "C" fn(latentd_text) -> *const c_void,
) -> latentd_plugin_entry {
    latentd_plugin_entry {
        size: size_of::<latentd_plugin_entry>() as u32,
        abi_major: LATENTD_ABI_MAJOR,
        abi_minor: LATENTD_ABI_MINOR,
        reserved: 0,
        init: Some(init),
        extension: Some(extension),
        create: Some(create::<P>),
        destroy: Some(destroy::<P>),
    }
}

/// Whether a text is this id.
pub fn is(text: latentd_text, id: &str) -> bool {
    // SAFETY: lent until the function that was called with it returns.
    unsafe { host::text(text) == id }
}

unsafe extern "C" fn init(given: *const abi::latentd_host) -> latentd_status {
    // SAFETY: as the ABI says.
    unsafe { host::init(given) }
}

unsafe extern "C" fn create<P: Plugin>(
    call: *mut latentd_call,
    job: *const latentd_job,
    instance: *mut *mut c_void,
) -> latentd_status {
    run(call, |call| {
        // SAFETY: as the ABI says.
        let made = P::new(&unsafe { Job::of(call, job) }?)?;
        // SAFETY: as the ABI says; `destroy` takes it back.
        unsafe { instance.write(Box::into_raw(Box::new(made)).cast()) };
        Ok(LATENTD_OK)
    })
}

unsafe extern "C" fn destroy<P: Plugin>(instance: *mut c_void) {
    if instance.is_null() {
        return;
    }
    // SAFETY: `create` made it, and it is destroyed once.
    let plugin = unsafe { Box::from_raw(instance.cast::<P>()) };
    // A payload may panic as it goes.
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(plugin))) {
        std::mem::forget(panic);
    }
}

macro_rules! stage {
    ($(#[doc = $doc:literal])+ $name:ident: $table:ident, $args:ident as $given:ident, $id:ident, $function:ident) => {
        $(#[doc = $doc])+
        pub struct $name<P>(PhantomData<P>);

        impl<P: stages::$name> $name<P> {
            /// The stage's id.
            pub const ID: &'static str = abi::$id;
            /// Its table.
            pub const TABLE: abi::$table =
                abi::$table { size: size_of::<$table>() as u32, reserved: 0, run: Some(Self::run) };

            unsafe extern "C" fn run(
                given: *mut c_void,
                call: *mut latentd_call,
                args: *const $args,
            ) -> latentd_status {
                run(call, |call| {
                    // SAFETY: as the ABI says.
                    let plugin: &P = unsafe { instance(given) }?;
                    // SAFETY: as the ABI says.
                    plugin.$function(&unsafe { $given::of(call, args) }?)?;
                    Ok(LATENTD_OK)
                })
            }
        }
    };
}

stage!(/// The table of [`stages::Conditioning`].
    Conditioning: latentd_conditioning_stage, latentd_conds as Conds, LATENTD_CONDITIONING, conditioning);
stage!(/// The table of [`stages::PassBegin`].
    PassBegin: latentd_pass_stage, latentd_pass as Passing, LATENTD_PASS_BEGIN, pass_begin);
stage!(/// The table of [`stages::NoiseInit`].
    NoiseInit: latentd_latents_stage, latentd_latents as Latents, LATENTD_NOISE_INIT, noise_init);
stage!(/// The table of [`stages::LatentFinal`].
    LatentFinal: latentd_latents_stage, latentd_latents as Latents, LATENTD_LATENT_FINAL, latent_final);
stage!(/// The table of [`stages::DenoiseBefore`].
    DenoiseBefore: latentd_denoise_stage, latentd_denoise as Denoising, LATENTD_DENOISE_BEFORE, denoise_before);
stage!(/// The table of [`stages::DenoiseCombine`].
    DenoiseCombine: latentd_denoise_stage, latentd_denoise as Combine, LATENTD_DENOISE_COMBINE, denoise_combine);
stage!(/// The table of [`stages::DenoiseWrap`].
    DenoiseWrap: latentd_denoise_stage, latentd_denoise as Wrap, LATENTD_DENOISE_WRAP, denoise_wrap);
stage!(/// The table of [`stages::Attention`].
    Attention: latentd_attention_stage, latentd_attention as Declaring, LATENTD_ATTENTION, attention);
stage!(/// The table of [`stages::ControlResiduals`].
    ControlResiduals: latentd_control_stage, latentd_control as Controlling, LATENTD_CONTROL_RESIDUALS, control_residuals);
stage!(/// The table of [`stages::UNetBlock`].
    UNetBlock: latentd_unet_block_stage, latentd_block as Block, LATENTD_UNET_BLOCK, unet_block);
stage!(/// The table of [`stages::ImagePost`].
    ImagePost: latentd_pictures_stage, latentd_pictures as Pictures, LATENTD_IMAGE_POST, image_post);
stage!(/// The table of [`stages::BatchPost`].
    BatchPost: latentd_pictures_stage, latentd_pictures as Batch, LATENTD_BATCH_POST, batch_post);

stage!(/// The table of [`stages::InfotextWrite`].
    InfotextWrite: latentd_pictures_stage, latentd_pictures as Writing, LATENTD_INFOTEXT_WRITE, infotext_write);

/// The table of [`stages::InfotextParse`].
pub struct InfotextParse<P>(PhantomData<P>);

/// cbindgen:ignore
impl<P: stages::InfotextParse> InfotextParse<P> {
    /// The stage's id.
    pub const ID: &'static str = abi::LATENTD_INFOTEXT_PARSE;
    /// Its table.
    pub const TABLE: latentd_infotext_stage = latentd_infotext_stage {
        size: size_of::<latentd_infotext_stage>() as u32,
        reserved: 0,
        run: Some(Self::run),
    };

    unsafe extern "C" fn run(call: *mut latentd_call, text: *const latentd_infotext) -> latentd_status {
        run(call, |call| {
            // SAFETY: as the ABI says.
            P::infotext_parse(&unsafe { Reading::of(call, text) }?)?;
            Ok(LATENTD_OK)
        })
    }
}

/// The table of [`stages::RequestRewrite`].
pub struct RequestRewrite<P>(PhantomData<P>);

/// cbindgen:ignore
impl<P: stages::RequestRewrite> RequestRewrite<P> {
    /// The stage's id.
    pub const ID: &'static str = abi::LATENTD_REQUEST_REWRITE;
    /// Its table.
    pub const TABLE: latentd_rewrite_stage = latentd_rewrite_stage {
        size: size_of::<latentd_rewrite_stage>() as u32,
        reserved: 0,
        run: Some(Self::run),
    };

    unsafe extern "C" fn run(call: *mut latentd_call, rewrite: *const latentd_rewrite) -> latentd_status {
        run(call, |call| {
            // SAFETY: as the ABI says.
            P::request_rewrite(&unsafe { Rewrite::of(call, rewrite) }?)?;
            Ok(LATENTD_OK)
        })
    }
}

/// The table of [`stages::PromptTags`].
pub struct PromptTags<P>(PhantomData<P>);

/// cbindgen:ignore
impl<P: stages::PromptTags> PromptTags<P> {
    /// The stage's id.
    pub const ID: &'static str = abi::LATENTD_PROMPT_TAGS;
    /// Its table.
    pub const TABLE: latentd_tags_stage = latentd_tags_stage {
        size: size_of::<latentd_tags_stage>() as u32,
        reserved: 0,
        run: Some(Self::run),
    };

    unsafe extern "C" fn run(call: *mut latentd_call, tag: *const latentd_tag) -> latentd_status {
        run(call, |call| {
            // SAFETY: as the ABI says.
            let tag = unsafe { Tag::of(call, tag) }?;
            if let Some(answer) = P::prompt_tags(&tag)? {
                tag.reply(&answer)?;
            }
            Ok(LATENTD_OK)
        })
    }
}

/// The table of [`methods::Methods`].
pub struct Methods<P>(PhantomData<P>);

/// cbindgen:ignore
impl<P: methods::Methods> Methods<P> {
    /// The extension's id.
    pub const ID: &'static str = abi::LATENTD_RPC_METHODS;
    /// Its table.
    pub const TABLE: latentd_methods_extension = latentd_methods_extension {
        size: size_of::<latentd_methods_extension>() as u32,
        reserved: 0,
        quick: Some(Self::quick),
        run: Some(Self::run),
    };

    unsafe extern "C" fn quick(call: *mut latentd_call, method: *const latentd_method) -> latentd_status {
        run(call, |call| {
            // SAFETY: as the ABI says.
            P::quick(&unsafe { MethodCall::of(call, method) }?)?;
            Ok(LATENTD_OK)
        })
    }

    unsafe extern "C" fn run(
        given: *mut c_void,
        call: *mut latentd_call,
        method: *const latentd_method,
    ) -> latentd_status {
        run(call, |call| {
            // SAFETY: as the ABI says.
            let plugin: &P = unsafe { instance(given) }?;
            // SAFETY: as the ABI says.
            plugin.method(&unsafe { MethodCall::of(call, method) }?)?;
            Ok(LATENTD_OK)
        })
    }
}

/// The table of [`job::JobPlan`].
pub struct JobPlan<P>(PhantomData<P>);

/// cbindgen:ignore
impl<P: job::JobPlan> JobPlan<P> {
    /// The extension's id.
    pub const ID: &'static str = abi::LATENTD_JOB_PLAN;
    /// Its table.
    pub const TABLE: latentd_plan_extension = latentd_plan_extension {
        size: size_of::<latentd_plan_extension>() as u32,
        reserved: 0,
        plan: Some(Self::plan),
    };

    unsafe extern "C" fn plan(
        call: *mut latentd_call,
        job: *const latentd_job,
        plan: *const latentd_plan,
    ) -> latentd_status {
        run(call, |call| {
            // SAFETY: as the ABI says.
            let (job, plan) = unsafe { (Job::of(call, job)?, Plan::of(call, plan)?) };
            Ok(if P::plan(&job, &plan)? { LATENTD_OK } else { LATENTD_SKIP })
        })
    }
}

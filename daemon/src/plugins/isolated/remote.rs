//! What stands for a plugin's functions while it runs in a process of its own: they have the child called, whatever a stage is.

use std::ffi::c_void;
use std::sync::Arc;
use std::time::Duration;

use latentd_plugin_api::abi::{
    LATENTD_ABI_MAJOR, LATENTD_ABI_MINOR, LATENTD_ATTENTION, LATENTD_BATCH_POST, LATENTD_CONDITIONING,
    LATENTD_CONTROL_RESIDUALS, LATENTD_DENOISE_BEFORE, LATENTD_DENOISE_COMBINE, LATENTD_DENOISE_WRAP,
    LATENTD_ENGINES, LATENTD_IMAGE_POST, LATENTD_INFOTEXT_PARSE, LATENTD_INFOTEXT_WRITE, LATENTD_JOB_PLAN,
    LATENTD_LATENT_FINAL, LATENTD_MISUSE, LATENTD_NOISE_INIT, LATENTD_PASS_BEGIN, LATENTD_PROMPT_TAGS,
    LATENTD_REQUEST_REWRITE, LATENTD_RPC_METHODS, LATENTD_UNET_BLOCK, latentd_attention,
    latentd_attention_stage, latentd_block, latentd_call, latentd_conditioning_stage, latentd_conds,
    latentd_control, latentd_control_stage, latentd_denoise, latentd_denoise_stage, latentd_detection,
    latentd_engine_facts, latentd_engine_run, latentd_engine_stage, latentd_infotext, latentd_infotext_stage,
    latentd_job, latentd_latents, latentd_latents_stage, latentd_method, latentd_methods_extension,
    latentd_pass, latentd_pass_stage, latentd_pictures, latentd_pictures_stage, latentd_plan,
    latentd_plan_extension, latentd_plugin_entry, latentd_rewrite, latentd_rewrite_stage, latentd_status,
    latentd_tag, latentd_tags_stage, latentd_unet_block_stage,
};
use rmp::encode;

use super::child::gone;
use super::coding::{Arena, Coded, Fields, key};
use super::messages::{self, Message};
use super::pool::{ENDING, Has, Lent, Remote};
use crate::plugins::host::call_of;
use crate::plugins::tables::{ENTRY, Tables};

/// What a function may take by itself that a request waits for as it comes.
const CONTROL: Duration = Duration::from_secs(10);
/// What a function of a job may take by itself.
const JOB: Duration = Duration::from_mins(10);
/// An instance, which lies in a child.
struct Instance {
    lent: Arc<Lent>,
    /// What it is called there.
    number: u64,
}

/// Calls a function of an instance.
unsafe fn of_instance(
    instance: *mut c_void,
    call: *mut latentd_call,
    function: (&str, &str),
    write: impl FnOnce(&mut Vec<u8>),
) -> latentd_status {
    // SAFETY: `create` made it, and it is not ended yet.
    let Some(Instance { lent, number }) = (unsafe { instance.cast::<Instance>().as_ref() }) else {
        return LATENTD_MISUSE;
    };
    match lent.call(call, function, *number, write, JOB) {
        Ok(answered) => with_error(call, answered.status, answered.error),
        Err(why) => gone(call, &why),
    }
}

/// What was wrong before a function was called is why it fails.
fn with_error(call: *mut latentd_call, status: latentd_status, error: Option<String>) -> latentd_status {
    match error {
        Some(why) => gone(call, &why),
        None => status,
    }
}

/// Lends a child to a call: within a job that of its outer ones, if there is one; else what the call answers.
unsafe fn lend(call: *mut latentd_call, is_within: bool) -> Result<Arc<Lent>, latentd_status> {
    // SAFETY: the call goes on.
    let Some(of) = (unsafe { call_of(call) }) else { return Err(LATENTD_MISUSE) };
    let Some(remote) = of.remote.and_then(|remote| remote.downcast_ref::<Arc<Remote>>()) else {
        return Err(LATENTD_MISUSE);
    };
    let lent = if is_within { remote.lend_within(of.job) } else { remote.lend(of.job) };
    lent.map_err(|why| gone(call, &why))
}

/// Calls a function without an instance, in a child that nobody else has; `read` takes what it gave.
unsafe fn of_plugin(
    call: *mut latentd_call,
    function: (&str, &str),
    write: impl FnOnce(&mut Vec<u8>),
    read: impl FnOnce(&Fields<'_, '_>, &Arena, Arc<Lent>) -> Result<(), String>,
    is_within: bool,
) -> latentd_status {
    // SAFETY: the call goes on.
    let lent = match unsafe { lend(call, is_within) } {
        Ok(lent) => lent,
        Err(status) => return status,
    };
    let within = if is_within { JOB } else { CONTROL };
    let answered = match lent.call(call, function, 0, write, within) {
        Ok(answered) => answered,
        Err(why) => return gone(call, &why),
    };
    let status = with_error(call, answered.status, answered.error);
    if status != 0 {
        return status;
    }
    let taken = match messages::read(&answered.frame) {
        Ok(Message::Answer { results, .. }) => {
            Fields::of(&results).and_then(|results| read(&results, &Arena::default(), lent))
        }
        Ok(_) => Ok(()),
        Err(wrong) => Err(wrong),
    };
    taken.map_or_else(|why| gone(call, &why), |()| 0)
}

/// Writes a struct that the host lends.
fn told<T: Coded + 'static>(args: *const T) -> impl FnOnce(&mut Vec<u8>) {
    // SAFETY: it is lent until the function that it is written for returns.
    move |out: &mut Vec<u8>| unsafe { args.write(out) }
}

unsafe extern "C" fn create(
    call: *mut latentd_call,
    job: *const latentd_job,
    instance: *mut *mut c_void,
) -> latentd_status {
    let read = |results: &Fields<'_, '_>, arena: &Arena, lent: Arc<Lent>| {
        let number = results.read("instance", arena)?;
        // SAFETY: it is the host's own.
        unsafe { instance.write(made(lent, number)) };
        Ok(())
    };
    // SAFETY: the call goes on.
    unsafe { of_plugin(call, (ENTRY, "create"), told(job), read, true) }
}

fn made(lent: Arc<Lent>, number: u64) -> *mut c_void {
    Box::into_raw(Box::new(Instance { lent, number })).cast()
}

/// What stands for an instance where the plugin makes none: nothing is asked, but its functions are called in one child.
unsafe extern "C" fn create_nothing(
    call: *mut latentd_call,
    _: *const latentd_job,
    instance: *mut *mut c_void,
) -> latentd_status {
    // SAFETY: the call goes on.
    match unsafe { lend(call, true) } {
        Ok(lent) => {
            // SAFETY: it is the host's own.
            unsafe { instance.write(made(lent, 0)) };
            0
        }
        Err(status) => status,
    }
}

unsafe extern "C" fn destroy_nothing(instance: *mut c_void) {
    if !instance.is_null() {
        // SAFETY: `create_nothing` made it, and it is ended once.
        drop(unsafe { Box::from_raw(instance.cast::<Instance>()) });
    }
}

unsafe extern "C" fn destroy(instance: *mut c_void) {
    if instance.is_null() {
        return;
    }
    // SAFETY: `create` made it, and it is ended once.
    let Instance { lent, number } = *unsafe { Box::from_raw(instance.cast::<Instance>()) };
    let nothing = |out: &mut Vec<u8>| {
        encode::write_nil(out).ok();
    };
    // If the child is no more, neither is the instance.
    lent.call(std::ptr::null_mut(), (ENTRY, "destroy"), number, nothing, ENDING).ok();
}

unsafe extern "C" fn plan(
    call: *mut latentd_call,
    job: *const latentd_job,
    _: *const latentd_plan,
) -> latentd_status {
    // SAFETY: the call goes on.
    unsafe { of_plugin(call, (LATENTD_JOB_PLAN, "plan"), told(job), |_, _, _| Ok(()), false) }
}

unsafe extern "C" fn describe(
    call: *mut latentd_call,
    run: *const latentd_engine_run,
    _: *const latentd_plan,
    facts: *mut latentd_engine_facts,
) -> latentd_status {
    let function = (LATENTD_ENGINES, "describe");
    let read = |results: &Fields<'_, '_>, arena: &Arena, _: Arc<Lent>| {
        let told = latentd_engine_facts::read(results.whole(), arena)?;
        // SAFETY: it is the host's own.
        unsafe { facts.write(told) };
        Ok(())
    };
    // SAFETY: the call goes on.
    unsafe { of_plugin(call, function, told(run), read, false) }
}

unsafe extern "C" fn engine_run(
    instance: *mut c_void,
    call: *mut latentd_call,
    run: *const latentd_engine_run,
    detected: Option<unsafe extern "C" fn(*mut latentd_call, *const latentd_detection) -> latentd_status>,
) -> latentd_status {
    let write = |out: &mut Vec<u8>| {
        encode::write_map_len(out, 2).ok();
        key(out, "run");
        told(run)(out);
        key(out, "finds");
        encode::write_uint(out, u64::from(detected.is_some())).ok();
    };
    // SAFETY: the call goes on.
    unsafe { of_instance(instance, call, (LATENTD_ENGINES, "run"), write) }
}

unsafe extern "C" fn quick(call: *mut latentd_call, method: *const latentd_method) -> latentd_status {
    // SAFETY: the call goes on.
    unsafe { of_plugin(call, (LATENTD_RPC_METHODS, "quick"), told(method), |_, _, _| Ok(()), false) }
}

unsafe extern "C" fn method_run(
    instance: *mut c_void,
    call: *mut latentd_call,
    method: *const latentd_method,
) -> latentd_status {
    // SAFETY: the call goes on.
    unsafe { of_instance(instance, call, (LATENTD_RPC_METHODS, "run"), told(method)) }
}

static PLAN: latentd_plan_extension = latentd_plan_extension {
    size: size_of::<latentd_plan_extension>() as u32,
    reserved: 0,
    plan: Some(plan),
};

macro_rules! proxies {
    (
        instance: { $($field:ident: $table:ident, $args:ident = $id:ident;)* }
        control: { $($own:ident: $own_table:ident, $own_args:ident = $own_id:ident;)* }
    ) => {
        $(
            unsafe extern "C" fn $field(
                instance: *mut c_void,
                call: *mut latentd_call,
                args: *const $args,
            ) -> latentd_status {
                // SAFETY: the call goes on.
                unsafe { of_instance(instance, call, ($id, "run"), told(args)) }
            }
        )*
        $(
            unsafe extern "C" fn $own(call: *mut latentd_call, args: *const $own_args) -> latentd_status {
                // SAFETY: the call goes on.
                unsafe { of_plugin(call, ($own_id, "run"), told(args), |_, _, _| Ok(()), false) }
            }
        )*

        /// The tables that stand for those of a plugin which has these.
        pub(in crate::plugins) fn tables(has: &Has) -> Tables {
            let named = |id: &str| has.tables.iter().any(|table| table == id);
            let function = |id: &str, function: &str| {
                has.functions.iter().any(|name| name.strip_prefix(id).and_then(|rest| rest.strip_prefix('.')) == Some(function))
            };
            Tables {
                entry: if function(ENTRY, "create") { &ENTRY_TABLE } else { &WITHOUT_INSTANCES },
                plan: named(LATENTD_JOB_PLAN).then_some(&PLAN),
                methods: named(LATENTD_RPC_METHODS).then(|| {
                    let table: &'static latentd_methods_extension = Box::leak(Box::new(latentd_methods_extension {
                        size: size_of::<latentd_methods_extension>() as u32,
                        reserved: 0,
                        quick: function(LATENTD_RPC_METHODS, "quick").then_some(quick as _),
                        run: function(LATENTD_RPC_METHODS, "run").then_some(method_run as _),
                    }));
                    table
                }),
                engines: named(LATENTD_ENGINES).then(|| {
                    let table: &'static latentd_engine_stage = Box::leak(Box::new(latentd_engine_stage {
                        size: size_of::<latentd_engine_stage>() as u32,
                        reserved: 0,
                        describe: function(LATENTD_ENGINES, "describe").then_some(describe as _),
                        run: Some(engine_run),
                    }));
                    table
                }),
                $($field: named($id).then(|| {
                    static TABLE: $table =
                        $table { size: size_of::<$table>() as u32, reserved: 0, run: Some($field) };
                    &TABLE
                }),)*
                $($own: named($own_id).then(|| {
                    static TABLE: $own_table =
                        $own_table { size: size_of::<$own_table>() as u32, reserved: 0, run: Some($own) };
                    &TABLE
                }),)*
            }
        }
    };
}

static ENTRY_TABLE: latentd_plugin_entry = latentd_plugin_entry {
    size: size_of::<latentd_plugin_entry>() as u32,
    abi_major: LATENTD_ABI_MAJOR,
    abi_minor: LATENTD_ABI_MINOR,
    reserved: 0,
    init: None,
    extension: None,
    create: Some(create),
    destroy: Some(destroy),
};

static WITHOUT_INSTANCES: latentd_plugin_entry =
    latentd_plugin_entry { create: Some(create_nothing), destroy: Some(destroy_nothing), ..ENTRY_TABLE };

proxies! {
    instance: {
        conditioning: latentd_conditioning_stage, latentd_conds = LATENTD_CONDITIONING;
        pass_begin: latentd_pass_stage, latentd_pass = LATENTD_PASS_BEGIN;
        noise_init: latentd_latents_stage, latentd_latents = LATENTD_NOISE_INIT;
        denoise_before: latentd_denoise_stage, latentd_denoise = LATENTD_DENOISE_BEFORE;
        denoise_wrap: latentd_denoise_stage, latentd_denoise = LATENTD_DENOISE_WRAP;
        attention: latentd_attention_stage, latentd_attention = LATENTD_ATTENTION;
        control_residuals: latentd_control_stage, latentd_control = LATENTD_CONTROL_RESIDUALS;
        unet_block: latentd_unet_block_stage, latentd_block = LATENTD_UNET_BLOCK;
        denoise_combine: latentd_denoise_stage, latentd_denoise = LATENTD_DENOISE_COMBINE;
        latent_final: latentd_latents_stage, latentd_latents = LATENTD_LATENT_FINAL;
        image_post: latentd_pictures_stage, latentd_pictures = LATENTD_IMAGE_POST;
        batch_post: latentd_pictures_stage, latentd_pictures = LATENTD_BATCH_POST;
        infotext_write: latentd_pictures_stage, latentd_pictures = LATENTD_INFOTEXT_WRITE;
    }
    control: {
        request_rewrite: latentd_rewrite_stage, latentd_rewrite = LATENTD_REQUEST_REWRITE;
        prompt_tags: latentd_tags_stage, latentd_tag = LATENTD_PROMPT_TAGS;
        infotext_parse: latentd_infotext_stage, latentd_infotext = LATENTD_INFOTEXT_PARSE;
    }
}

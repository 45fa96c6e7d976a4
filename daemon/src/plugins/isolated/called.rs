//! Which of a plugin's functions a call is for: the arguments as structs, the function called, what it gave.

use std::ffi::c_void;

use latentd_plugin_api::abi::{
    LATENTD_ATTENTION, LATENTD_BATCH_POST, LATENTD_CONDITIONING, LATENTD_CONTROL_RESIDUALS,
    LATENTD_DENOISE_BEFORE, LATENTD_DENOISE_COMBINE, LATENTD_DENOISE_WRAP, LATENTD_ENGINES,
    LATENTD_IMAGE_POST, LATENTD_INFOTEXT_PARSE, LATENTD_INFOTEXT_WRITE, LATENTD_JOB_PLAN,
    LATENTD_LATENT_FINAL, LATENTD_NOISE_INIT, LATENTD_PASS_BEGIN, LATENTD_PROMPT_TAGS,
    LATENTD_REQUEST_REWRITE, LATENTD_RPC_METHODS, LATENTD_UNET_BLOCK, latentd_attention, latentd_control,
    latentd_engine_facts, latentd_engine_run, latentd_status,
};
use rmp::encode;
use rmpv::ValueRef;

use super::asks;
use super::coding::{Coded, Fields, Wrong, key};
use super::guest_call::{GuestCall, lent};
use super::guest_tables::PLAN;
use crate::plugins::tables::{ENTRY, Tables};

/// Calls a function of the plugin: its status, and a map of what it gave beside.
pub(super) fn dispatch(
    loaded: Option<&Tables>,
    (table, function): (&str, &str),
    (instance, call): (*mut c_void, &GuestCall),
    args: &ValueRef<'_>,
) -> Result<(latentd_status, Vec<u8>), Wrong> {
    let tables = loaded.ok_or("the plugin was not loaded")?;
    let lacks = || format!("the plugin has no {table}.{function}");
    let pointer = call.pointer();
    // Stages whose functions are given an instance and one struct.
    macro_rules! stages {
        ($($id:ident: $field:ident),*) => {
            match table {
                $($id => {
                    let run = tables.$field.and_then(|table| table.run).ok_or_else(lacks)?;
                    let args = lent(Some(args), call)?;
                    // SAFETY: what is lent lives until the function returns; instance and call are this plugin's.
                    return Ok((unsafe { run(instance, pointer, args) }, vec![]));
                })*
                _ => (),
            }
        };
    }
    // Those without an instance.
    macro_rules! control {
        ($($id:ident: $field:ident),*) => {
            match table {
                $($id => {
                    let run = tables.$field.and_then(|table| table.run).ok_or_else(lacks)?;
                    let args = lent(Some(args), call)?;
                    // SAFETY: as above.
                    return Ok((unsafe { run(pointer, args) }, vec![]));
                })*
                _ => (),
            }
        };
    }
    stages! {
        LATENTD_CONDITIONING: conditioning,
        LATENTD_PASS_BEGIN: pass_begin,
        LATENTD_NOISE_INIT: noise_init,
        LATENTD_DENOISE_BEFORE: denoise_before,
        LATENTD_DENOISE_WRAP: denoise_wrap,
        LATENTD_UNET_BLOCK: unet_block,
        LATENTD_DENOISE_COMBINE: denoise_combine,
        LATENTD_LATENT_FINAL: latent_final,
        LATENTD_IMAGE_POST: image_post,
        LATENTD_BATCH_POST: batch_post,
        LATENTD_INFOTEXT_WRITE: infotext_write
    }
    control! {
        LATENTD_REQUEST_REWRITE: request_rewrite,
        LATENTD_PROMPT_TAGS: prompt_tags,
        LATENTD_INFOTEXT_PARSE: infotext_parse
    }
    let fields = Fields::of(args)?;
    match (table, function) {
        (ENTRY, "create") => {
            let mut made = std::ptr::null_mut();
            let job = lent(Some(args), call)?;
            let status = match tables.entry.create {
                // SAFETY: as above.
                Some(create) => unsafe { create(pointer, job, &raw mut made) },
                None => 0,
            };
            let mut out = vec![];
            encode::write_map_len(&mut out, 1).ok();
            key(&mut out, "instance");
            encode::write_uint(&mut out, made.addr() as u64).ok();
            Ok((status, out))
        }
        (ENTRY, "destroy") => {
            // Without `create` there is nothing to end.
            if let Some(destroy) = tables.entry.destroy.filter(|_| tables.entry.create.is_some()) {
                // SAFETY: `create` made it, and it is ended once.
                unsafe { destroy(instance) };
            }
            Ok((0, vec![]))
        }
        (LATENTD_JOB_PLAN, _) => {
            let plan = tables.plan.and_then(|table| table.plan).ok_or_else(lacks)?;
            // SAFETY: as above.
            Ok((unsafe { plan(pointer, lent(Some(args), call)?, &raw const PLAN) }, vec![]))
        }
        (LATENTD_ATTENTION, _) => {
            let run = tables.attention.and_then(|table| table.run).ok_or_else(lacks)?;
            let mut told = latentd_attention::read(args, &call.arena)?;
            told.add = Some(asks::attention_add);
            // SAFETY: as above.
            Ok((unsafe { run(instance, pointer, &raw const told) }, vec![]))
        }
        (LATENTD_CONTROL_RESIDUALS, _) => {
            let run = tables.control_residuals.and_then(|table| table.run).ok_or_else(lacks)?;
            let mut told = latentd_control::read(args, &call.arena)?;
            told.add = Some(asks::control_add);
            // SAFETY: as above.
            Ok((unsafe { run(instance, pointer, &raw const told) }, vec![]))
        }
        (LATENTD_ENGINES, "describe") => {
            let describe = tables.engines.and_then(|table| table.describe).ok_or_else(lacks)?;
            let run = lent::<latentd_engine_run>(Some(args), call)?;
            let mut facts = latentd_engine_facts::read(&ValueRef::Nil, &call.arena)?;
            // SAFETY: as above.
            let status = unsafe { describe(pointer, run, &raw const PLAN, &raw mut facts) };
            let mut out = vec![];
            // SAFETY: it is ours.
            unsafe { facts.write(&mut out) };
            Ok((status, out))
        }
        (LATENTD_ENGINES, _) => {
            let run = tables.engines.and_then(|table| table.run).ok_or_else(lacks)?;
            let told = lent::<latentd_engine_run>(fields.get("run"), call)?;
            let finds = fields.read::<u32>("finds", &call.arena)? != 0;
            let detected = if finds { Some(asks::engines_detected as _) } else { None };
            // SAFETY: as above.
            Ok((unsafe { run(instance, pointer, told, detected) }, vec![]))
        }
        (LATENTD_RPC_METHODS, "quick") => {
            let quick = tables.methods.and_then(|table| table.quick).ok_or_else(lacks)?;
            // SAFETY: as above.
            Ok((unsafe { quick(pointer, lent(Some(args), call)?) }, vec![]))
        }
        (LATENTD_RPC_METHODS, _) => {
            let run = tables.methods.and_then(|table| table.run).ok_or_else(lacks)?;
            // SAFETY: as above.
            Ok((unsafe { run(instance, pointer, lent(Some(args), call)?) }, vec![]))
        }
        _ => Err(lacks()),
    }
}

//! What plugins may call: the host's table and its services.
//!
//! Each function takes what a plugin gives it for what it may be: null, misaligned in size, from the wrong thread. A pointer
//! that is none cannot be told; a plugin that runs within the daemon is trusted that far.

mod attention;
mod cache;
mod engines;
mod evals;
mod jobs;
mod library;
mod models;
mod named;
mod network_rows;
mod networks;
mod numbers;
mod onnx;
mod ops;
mod plan;
mod residuals;
mod saving;
mod serving;
mod subjobs;
mod tensors;
mod texts;
mod vae;

use std::ffi::c_void;

use latentd_plugin_api::abi::{
    LATENTD_ABI_MAJOR, LATENTD_ABI_MINOR, LATENTD_CACHE, LATENTD_DEBUG, LATENTD_ERROR, LATENTD_EVALS,
    LATENTD_JOBS, LATENTD_LIBRARY, LATENTD_MODELS, LATENTD_NETWORKS, LATENTD_ONNX, LATENTD_OPS,
    LATENTD_REGISTRY, LATENTD_SUBJOBS, LATENTD_TENSORS, LATENTD_TEXTS, LATENTD_VAE, LATENTD_WARN,
    latentd_bytes, latentd_call, latentd_handle, latentd_host, latentd_status, latentd_text,
};
use tracing::{debug, error, info, warn};

use super::call::{Call, Recorded, State};
pub(super) use attention::add_rule;
pub(super) use cache::KEY_BYTES;
pub(super) use engines::detected;
pub(super) use plan::{NOTE_BYTES, PLAN};
pub(super) use residuals::add_residual;
pub(super) use serving::{bytes, call_of, fail_service, give_back, on_one_line, read_text, taken, text};
use serving::{misuse, objects, read_bytes, serve};

/// Slots that a stage may have.
const MOST_SLOTS: u32 = 1 << 16;
/// Bytes of all replies of one call.
pub(super) const REPLY_BYTES: u64 = 16 << 20;

macro_rules! services {
    ($($id:ident => $table:path),* $(,)?) => {
        /// What this host serves.
        pub(super) const SERVICES: &[&str] = &[$($id),*];

        fn table(id: &str) -> Option<*const c_void> {
            match id {
                $($id => Some((&raw const $table).cast()),)*
                _ => None,
            }
        }
    };
}

services! {
    LATENTD_JOBS => jobs::JOBS,
    LATENTD_MODELS => models::MODELS,
    LATENTD_EVALS => evals::EVALS,
    LATENTD_TENSORS => tensors::TENSORS,
    LATENTD_OPS => ops::OPS,
    LATENTD_TEXTS => texts::TEXTS,
    LATENTD_VAE => vae::VAE,
    LATENTD_LIBRARY => library::LIBRARY,
    LATENTD_NETWORKS => networks::NETWORKS,
    LATENTD_ONNX => onnx::ONNX,
    LATENTD_REGISTRY => engines::REGISTRY,
    LATENTD_CACHE => cache::CACHE,
    LATENTD_SUBJOBS => subjobs::SUBJOBS,
}

/// The table that every plugin is given.
pub(super) static TABLE: latentd_host = latentd_host {
    size: size_of::<latentd_host>() as u32,
    abi_major: LATENTD_ABI_MAJOR,
    abi_minor: LATENTD_ABI_MINOR,
    reserved: 0,
    version: text(env!("CARGO_PKG_VERSION")),
    service: Some(service),
    log: Some(log),
    fail: Some(fail),
    error: Some(last_error),
    replace: Some(replace),
    reply: Some(reply),
};

/// The table of a service as the type that its id says.
pub(super) fn service_of<T>(id: &str) -> Option<&'static T> {
    // SAFETY: tables stay, and an id's is of its type.
    table(id).and_then(|table| unsafe { table.cast::<T>().as_ref() })
}

unsafe extern "C" fn service(id: latentd_text) -> *const c_void {
    // SAFETY: the plugin lends a text.
    table(&unsafe { read_text(id) }).unwrap_or(std::ptr::null())
}

unsafe extern "C" fn log(call: *mut latentd_call, level: u32, line: latentd_text) {
    // SAFETY: the plugin lends a text, and a call or null.
    let (line, call) = unsafe { (read_text(line), call_of(call)) };
    let plugin = call.map_or("?", |call| call.plugin);
    let line = on_one_line(&line);
    let name = match level {
        LATENTD_ERROR => "error",
        LATENTD_WARN => "warn",
        _ => "info",
    };
    if let Some(call) = call
        && level != LATENTD_DEBUG
    {
        call.job.record(call.plugin, call.version, &Recorded::Logged { level: name, text: &line });
    }
    match level {
        LATENTD_ERROR => error!(plugin, "{line}"),
        LATENTD_WARN => warn!(plugin, "{line}"),
        LATENTD_DEBUG => debug!(plugin, "{line}"),
        _ => info!(plugin, "{line}"),
    }
}

unsafe extern "C" fn fail(
    call: *mut latentd_call,
    status: latentd_status,
    text: latentd_text,
) -> latentd_status {
    // SAFETY: the plugin lends a text, and a call.
    let (text, call) = unsafe { (read_text(text), call_of(call)) };
    let text = on_one_line(&text);
    if let Some(call) = call.filter(|call| call.is_its_thread()) {
        call.with(|state| state.failure = Some((status, text)));
    }
    status
}

unsafe extern "C" fn last_error(call: *mut latentd_call) -> latentd_text {
    // SAFETY: the plugin names a call.
    let call = unsafe { call_of(call) }.filter(|call| call.is_its_thread());
    // It stays where it is until the next service of this call.
    call.map_or_else(|| text(""), |call| call.with(|state| text(&state.error)))
}

unsafe extern "C" fn replace(call: *mut latentd_call, slot: u32, handle: latentd_handle) -> latentd_status {
    let work = |_: &Call<'_>, state: &mut State<'_>| {
        if slot >= MOST_SLOTS {
            return misuse(format!("slot {slot} is none"));
        }
        objects(state)?.hand_over(handle)?;
        state.replaced.insert(slot, handle);
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

unsafe extern "C" fn reply(call: *mut latentd_call, slot: u32, reply: latentd_bytes) -> latentd_status {
    let work = |_: &Call<'_>, state: &mut State<'_>| {
        if slot >= MOST_SLOTS {
            return misuse(format!("slot {slot} is none"));
        }
        let others: usize =
            state.replies.iter().filter(|(other, _)| **other != slot).map(|(_, bytes)| bytes.len()).sum();
        if reply.length > REPLY_BYTES - (others as u64).min(REPLY_BYTES) {
            return misuse(format!("a reply of {} bytes; {REPLY_BYTES} are allowed in all", reply.length));
        }
        // SAFETY: the plugin lends so many bytes.
        let Some(bytes) = (unsafe { read_bytes(reply) }) else { return misuse("the reply is null") };
        state.replies.insert(slot, bytes.to_vec());
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

//! The tables that a plugin in a process of its own is given: each function asks its host.

use std::ffi::c_void;

use latentd_plugin_api::abi::{
    LATENTD_ABI_MAJOR, LATENTD_ABI_MINOR, LATENTD_CACHE, LATENTD_EVALS, LATENTD_JOBS, LATENTD_LIBRARY,
    LATENTD_MODELS, LATENTD_NETWORKS, LATENTD_ONNX, LATENTD_OPS, LATENTD_READ, LATENTD_REGISTRY,
    LATENTD_SUBJOBS, LATENTD_TENSORS, LATENTD_TEXTS, LATENTD_VAE, latentd_bytes, latentd_cache, latentd_call,
    latentd_evals, latentd_handle, latentd_host, latentd_jobs, latentd_library, latentd_list, latentd_map,
    latentd_model_describe, latentd_networks, latentd_onnx, latentd_op, latentd_ops, latentd_plan,
    latentd_registry, latentd_status, latentd_subjobs, latentd_tensors, latentd_text, latentd_texts,
    latentd_vae,
};
use rmp::encode;
use rmpv::ValueRef;

use super::asking::{HOST, ask, error_of, is_cancelled, place, tell, tell_progress};
use super::asks;
use super::coding::{Arena, Coded, Fields, key, write_list};
use crate::plugins::host::{KEY_BYTES, NOTE_BYTES, REPLY_BYTES, give_back, read_text, taken, text};

/// Its host.
pub(super) static TABLE: latentd_host = latentd_host {
    size: size_of::<latentd_host>() as u32,
    abi_major: LATENTD_ABI_MAJOR,
    abi_minor: LATENTD_ABI_MINOR,
    reserved: 0,
    version: text(env!("CARGO_PKG_VERSION")),
    service: Some(service),
    log: Some(log),
    fail: Some(fail),
    error: Some(error),
    replace: Some(asks::replace),
    reply: Some(reply),
};

/// What a plan is answered with.
pub(super) static PLAN: latentd_plan = latentd_plan {
    size: size_of::<latentd_plan>() as u32,
    reserved: 0,
    stage: Some(asks::plan_stage),
    note: Some(note),
    network: Some(asks::plan_network),
    engine: Some(asks::plan_engine),
    subjob: Some(asks::plan_subjob),
    memory: Some(asks::plan_memory),
};

static JOBS: latentd_jobs = latentd_jobs {
    size: size_of::<latentd_jobs>() as u32,
    reserved: 0,
    cancelled: Some(cancelled),
    notice: Some(asks::job_notice),
    progress: Some(progress),
    preview: Some(asks::job_preview),
    artifact: Some(asks::job_artifact),
    reserve: Some(asks::job_reserve),
    folder: Some(asks::job_folder),
    settings: Some(asks::job_settings),
};

static MODELS: latentd_model_describe = latentd_model_describe {
    size: size_of::<latentd_model_describe>() as u32,
    reserved: 0,
    describe: Some(asks::model_describe),
};

static EVALS: latentd_evals = latentd_evals {
    size: size_of::<latentd_evals>() as u32,
    reserved: 0,
    eval: Some(asks::evals_eval),
    bank: Some(asks::evals_bank),
};

static TENSORS: latentd_tensors = latentd_tensors {
    size: size_of::<latentd_tensors>() as u32,
    reserved: 0,
    alloc: Some(asks::tensor_alloc),
    info: Some(asks::tensor_info),
    r#ref: Some(asks::tensor_ref),
    release: Some(release),
    map: Some(map),
    unmap: Some(unmap),
    digest: Some(digest),
};

static OPS: latentd_ops = latentd_ops {
    size: size_of::<latentd_ops>() as u32,
    reserved: 0,
    run: Some(ops_run),
    noise: Some(asks::ops_noise),
};

static TEXTS: latentd_texts = latentd_texts {
    size: size_of::<latentd_texts>() as u32,
    reserved: 0,
    tokenise: Some(asks::texts_tokenise),
    encode: Some(asks::texts_encode),
};

static VAE: latentd_vae = latentd_vae {
    size: size_of::<latentd_vae>() as u32,
    reserved: 0,
    encode_image: Some(asks::vae_encode_image),
    decode_latents: Some(asks::vae_decode_latents),
};

static LIBRARY: latentd_library = latentd_library {
    size: size_of::<latentd_library>() as u32,
    reserved: 0,
    find: Some(asks::library_find),
    names: Some(asks::library_names),
    info: Some(asks::library_info),
    tensor: Some(asks::library_tensor),
    open: Some(asks::library_open),
    save: Some(asks::library_save),
    remove: Some(asks::library_remove),
};

static NETWORKS: latentd_networks = latentd_networks {
    size: size_of::<latentd_networks>() as u32,
    reserved: 0,
    open: Some(asks::networks_open),
    close: Some(asks::networks_close),
    describe: Some(asks::networks_describe),
    run: Some(asks::networks_run),
};

static ONNX: latentd_onnx = latentd_onnx {
    size: size_of::<latentd_onnx>() as u32,
    reserved: 0,
    open: Some(asks::onnx_open),
    close: Some(asks::onnx_close),
    describe: Some(asks::onnx_describe),
    initializer: Some(asks::onnx_initializer),
    run: Some(asks::onnx_run),
};

static REGISTRY: latentd_registry = latentd_registry {
    size: size_of::<latentd_registry>() as u32,
    reserved: 0,
    names: Some(asks::registry_names),
    run: Some(asks::registry_run),
};

static CACHE: latentd_cache =
    latentd_cache { size: size_of::<latentd_cache>() as u32, reserved: 0, get: Some(get), put: Some(put) };

static SUBJOBS: latentd_subjobs =
    latentd_subjobs { size: size_of::<latentd_subjobs>() as u32, reserved: 0, run: Some(asks::subjobs_run) };

macro_rules! tables {
    ($($id:ident => $table:ident),* $(,)?) => {
        /// What is served to it.
        #[cfg(test)]
        pub(super) const SERVED: &[&str] = &[$($id),*];

        fn table(id: &str) -> *const c_void {
            match id {
                $($id => (&raw const $table).cast(),)*
                _ => std::ptr::null(),
            }
        }
    };
}

tables! {
    LATENTD_JOBS => JOBS,
    LATENTD_MODELS => MODELS,
    LATENTD_EVALS => EVALS,
    LATENTD_TENSORS => TENSORS,
    LATENTD_OPS => OPS,
    LATENTD_TEXTS => TEXTS,
    LATENTD_VAE => VAE,
    LATENTD_LIBRARY => LIBRARY,
    LATENTD_NETWORKS => NETWORKS,
    LATENTD_ONNX => ONNX,
    LATENTD_REGISTRY => REGISTRY,
    LATENTD_CACHE => CACHE,
    LATENTD_SUBJOBS => SUBJOBS,
}

unsafe extern "C" fn service(id: latentd_text) -> *const c_void {
    // SAFETY: the plugin lends a text.
    table(&unsafe { read_text(id) })
}

unsafe extern "C" fn log(call: *mut latentd_call, level: u32, line: latentd_text) {
    let write = |out: &mut Vec<u8>| {
        encode::write_map_len(out, 2).ok();
        // SAFETY: the plugin lends a text.
        unsafe {
            key(out, "level");
            level.write(out);
            key(out, "line");
            text(&read_text(line)).write(out);
        }
    };
    tell(call, (HOST, "log"), write);
}

unsafe extern "C" fn fail(
    call: *mut latentd_call,
    status: latentd_status,
    why: latentd_text,
) -> latentd_status {
    let write = |out: &mut Vec<u8>| {
        encode::write_map_len(out, 2).ok();
        // SAFETY: the plugin lends a text.
        unsafe {
            key(out, "status");
            status.write(out);
            key(out, "text");
            text(&read_text(why)).write(out);
        }
    };
    tell(call, (HOST, "fail"), write);
    status
}

/// Bytes, if no more than whoever takes them reads: else how many they would be.
fn at_most(bytes: latentd_bytes, most: u64) -> latentd_bytes {
    let data = if bytes.length > most { std::ptr::null() } else { bytes.data };
    latentd_bytes { data, ..bytes }
}

unsafe extern "C" fn reply(call: *mut latentd_call, slot: u32, reply: latentd_bytes) -> latentd_status {
    // SAFETY: as the plugin says.
    unsafe { asks::reply(call, slot, at_most(reply, REPLY_BYTES)) }
}

unsafe extern "C" fn note(call: *mut latentd_call, note: latentd_bytes) -> latentd_status {
    // SAFETY: as the plugin says.
    unsafe { asks::plan_note(call, at_most(note, NOTE_BYTES)) }
}

unsafe extern "C" fn get(
    call: *mut latentd_call,
    key: latentd_bytes,
    handle: *mut latentd_handle,
) -> latentd_status {
    // SAFETY: as the plugin says.
    unsafe { asks::cache_get(call, at_most(key, KEY_BYTES), handle) }
}

unsafe extern "C" fn put(
    call: *mut latentd_call,
    key: latentd_bytes,
    handle: latentd_handle,
) -> latentd_status {
    // SAFETY: as the plugin says.
    unsafe { asks::cache_put(call, at_most(key, KEY_BYTES), handle) }
}

unsafe extern "C" fn error(call: *mut latentd_call) -> latentd_text {
    error_of(call)
}

unsafe extern "C" fn cancelled(_: *mut latentd_call) -> u32 {
    u32::from(is_cancelled())
}

unsafe extern "C" fn progress(call: *mut latentd_call, done: f64, what: latentd_text) -> latentd_status {
    tell_progress(call, done, what)
}

fn of_handle(handle: latentd_handle) -> impl FnOnce(&mut Vec<u8>) {
    move |out: &mut Vec<u8>| {
        encode::write_map_len(out, 1).ok();
        key(out, "handle");
        encode::write_uint(out, handle).ok();
    }
}

unsafe extern "C" fn release(call: *mut latentd_call, handle: latentd_handle) -> latentd_status {
    ask(call, (LATENTD_TENSORS, "release"), of_handle(handle), |_, _| Ok(()), false)
}

unsafe extern "C" fn unmap(call: *mut latentd_call, handle: latentd_handle) -> latentd_status {
    ask(call, (LATENTD_TENSORS, "unmap"), of_handle(handle), |_, _| Ok(()), false)
}

unsafe extern "C" fn digest(
    call: *mut latentd_call,
    handle: latentd_handle,
    sha256: *mut u8,
) -> latentd_status {
    let write = |out: &mut Vec<u8>| {
        encode::write_map_len(out, 2).ok();
        key(out, "handle");
        encode::write_uint(out, handle).ok();
        key(out, "is_null");
        encode::write_uint(out, u64::from(sha256.is_null())).ok();
    };
    let read = |results: &Fields<'_, '_>, _: &Arena| match results.get("sha256") {
        Some(ValueRef::Binary(hash)) if hash.len() == 32 => {
            // SAFETY: there are 32 bytes of the plugin's own, by its word.
            unsafe { sha256.copy_from_nonoverlapping(hash.as_ptr(), hash.len()) };
            Ok(())
        }
        _ => Err("a digest of 32 bytes is meant".to_owned()),
    };
    ask(call, (LATENTD_TENSORS, "digest"), write, read, false)
}

/// The host puts what is read where this process sees it, and says where what is written goes.
unsafe extern "C" fn map(
    call: *mut latentd_call,
    handle: latentd_handle,
    map: *mut latentd_map,
) -> latentd_status {
    // SAFETY: the plugin's own struct, which begins with its size.
    let asked = unsafe { taken(map.cast_const()) };
    let write = |out: &mut Vec<u8>| {
        encode::write_map_len(out, 6).ok();
        key(out, "handle");
        encode::write_uint(out, handle).ok();
        key(out, "is_null");
        encode::write_uint(out, u64::from(asked.is_none())).ok();
        let (mode, code, bits, layout) =
            asked.map_or((0, 0, 0, 0), |asked| (asked.mode, asked.code, asked.bits, asked.layout));
        for (name, number) in
            [("mode", mode), ("code", code.into()), ("bits", bits.into()), ("layout", layout)]
        {
            key(out, name);
            encode::write_uint(out, number.into()).ok();
        }
    };
    let read = |results: &Fields<'_, '_>, arena: &Arena| {
        let Some(mut told) = asked else { return Ok(()) };
        told.code = results.read("code", arena)?;
        told.bits = results.read("bits", arena)?;
        told.lanes = 1;
        told.bytes = results.read("bytes", arena)?;
        told.strides = results.read("strides", arena)?;
        told.data = place(told.mode != LATENTD_READ, results.read("from", arena)?).cast();
        // SAFETY: it is not null, and the plugin's own.
        unsafe { give_back(&told, map) };
        Ok(())
    };
    ask(call, (LATENTD_TENSORS, "map"), write, read, false)
}

unsafe extern "C" fn ops_run(
    call: *mut latentd_call,
    ops: latentd_list,
    results: *mut latentd_handle,
) -> latentd_status {
    let write = |out: &mut Vec<u8>| {
        encode::write_map_len(out, 2).ok();
        key(out, "ops");
        // SAFETY: the plugin lends a list.
        unsafe { write_list::<latentd_op>(&ops, out) };
        key(out, "is_null");
        encode::write_uint(out, u64::from(results.is_null())).ok();
    };
    let read = |told: &Fields<'_, '_>, arena: &Arena| {
        let kept = told.list::<u64>("results", arena)?;
        if !results.is_null() && kept.count > 0 {
            // SAFETY: the plugin has a place for each that it keeps.
            unsafe { results.copy_from_nonoverlapping(kept.items.cast(), kept.count as usize) };
        }
        Ok(())
    };
    ask(call, (LATENTD_OPS, "run"), write, read, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::host::SERVICES;

    #[test]
    fn every_service_is_served_to_a_process_too() {
        let (mut served, mut all) = (SERVED.to_vec(), SERVICES.to_vec());
        served.sort_unstable();
        all.sort_unstable();
        assert_eq!(served, all);
        // Every function of the tables that is there within the daemon.
        let functions = |table: *const c_void, size: usize| {
            // SAFETY: after the size they hold functions, or nothing.
            (1..size / 8).map(|index| unsafe { *table.cast::<usize>().add(index) } != 0).collect::<Vec<_>>()
        };
        for id in SERVICES {
            let (own, there) = (table(id), crate::plugins::host::service_of::<u32>(id).expect("there"));
            let size = *there as usize;
            let there = std::ptr::from_ref(there).cast();
            // SAFETY: both begin with their sizes.
            assert_eq!(unsafe { *own.cast::<u32>() } as usize, size, "{id}");
            assert_eq!(functions(own, size), functions(there, size), "{id}");
        }
    }
}

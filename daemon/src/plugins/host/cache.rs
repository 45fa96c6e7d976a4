//! What plugins made and would rather not make again: kept beyond their jobs, under names of their own.

use std::sync::Arc;

use latentd_plugin_api::abi::{
    LATENTD_CACHE, LATENTD_INVALID, LATENTD_NOT_FOUND, latentd_bytes, latentd_cache, latentd_call,
    latentd_handle, latentd_status,
};
use sha2::{Digest, Sha256};

use super::serving::{Failure, Served, misuse, objects, read_bytes, reserve, serve};
use crate::memory::{CacheKey, Cached};
use crate::plugins::call::{Call, State};
use crate::plugins::objects::Content;

/// Bytes of a key.
pub(in crate::plugins) const KEY_BYTES: u64 = 64 << 10;

pub(super) static CACHE: latentd_cache =
    latentd_cache { size: size_of::<latentd_cache>() as u32, reserved: 0, get: Some(get), put: Some(put) };

/// A key of a plugin's as one that no other plugin, no other version of it, and no job of another precision has: what networks
/// make depends on that, and no job's bytes may depend on what ran before.
///
/// # Safety
/// `key` points to as many bytes as it says, or is null.
unsafe fn private(call: &Call<'_>, key: latentd_bytes) -> Served<CacheKey> {
    if key.length == 0 || key.length > KEY_BYTES {
        let text = format!("a key of {} bytes; 1 to {KEY_BYTES} are possible", key.length);
        return Err(Failure(LATENTD_INVALID, text));
    }
    // SAFETY: as the caller says.
    let Some(key) = (unsafe { read_bytes(key) }) else { return misuse("the key is null") };
    let mut hash = Sha256::new();
    let precision = call.job.resources().precision().name();
    for part in [call.plugin.as_bytes(), call.version.as_bytes(), precision.as_bytes(), key] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    Ok(hash.finalize().into())
}

unsafe extern "C" fn get(
    call: *mut latentd_call,
    key: latentd_bytes,
    handle: *mut latentd_handle,
) -> latentd_status {
    let work = |call: &Call<'_>, state: &mut State<'_>| {
        if handle.is_null() {
            return misuse("handle is null");
        }
        // SAFETY: the plugin lends so many bytes.
        let key = unsafe { private(call, key) }?;
        let mut objects = objects(state)?;
        let found = call.job.cached(&key);
        let found =
            found.and_then(|Cached { value, lease }| Some((value.downcast_ref::<Content>()?.clone(), lease)));
        let Some((content, lease)) = found else {
            let text = format!("{LATENTD_CACHE}: nothing is kept under this key");
            return Err(Failure(LATENTD_NOT_FOUND, text));
        };
        let found = objects.lend_counted(content, lease)?;
        // SAFETY: it is not null, and the plugin's own.
        unsafe { handle.write(found) };
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

unsafe extern "C" fn put(
    call: *mut latentd_call,
    key: latentd_bytes,
    handle: latentd_handle,
) -> latentd_status {
    let work = |call: &Call<'_>, state: &mut State<'_>| {
        // SAFETY: the plugin lends so many bytes.
        let key = unsafe { private(call, key) }?;
        let mut objects = objects(state)?;
        let content = objects.readable_content(handle)?.clone();
        // From now on nobody writes to it.
        objects.hand_over(handle)?;
        let lease = match objects.uncounted(handle)? {
            None => objects.lease(handle)?,
            Some(bytes) => Some(Arc::new(reserve(call, bytes)?)),
        };
        if let Some(lease) = lease {
            call.job.cache(key, Cached { value: Arc::new(content), lease });
        }
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

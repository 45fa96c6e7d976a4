//! Files of the library that plugins write and remove.

use std::collections::BTreeMap;

use latentd_client::protocol::LibraryKind;
use latentd_models::Tensor;
use latentd_models::files::to_safetensors;
use latentd_plugin_api::abi::{
    LATENTD_FAILED, LATENTD_INVALID, LATENTD_UNSUPPORTED, latentd_bytes, latentd_call, latentd_file,
    latentd_list, latentd_save, latentd_saved_tensor, latentd_status,
};

use super::named::{file, kind, opened};
use super::serving::{
    Failure, Served, elements, misuse, objects, on_one_line, read_bytes, read_text, reserve, serve, taken,
};
use crate::plugins::call::{Call, State};
use crate::plugins::objects::Content;
use crate::plugins::resources::FileToSave;

/// Tensors of one file, and bytes of all of them.
const MOST_TENSORS: u32 = 4096;
const MOST_BYTES: usize = 256 << 20;
/// Texts that a file says of itself, and bytes of them.
const MOST_TEXTS: usize = 1024;
const METADATA_BYTES: u64 = 1 << 20;

pub(super) unsafe extern "C" fn save(
    call: *mut latentd_call,
    save: *const latentd_save,
    number: *mut latentd_file,
) -> latentd_status {
    let work = |call: &Call<'_>, state: &mut State<'_>| {
        if number.is_null() {
            return misuse("file is null");
        }
        // SAFETY: the plugin's own struct, which begins with its size.
        let Some(told) = (unsafe { taken(save) }) else { return misuse("save is null") };
        // SAFETY: the plugin lends two texts.
        let (of, name) = unsafe { (read_text(told.kind), on_one_line(&read_text(told.name))) };
        let kind = allowed(call, state, kind(&of)?)?;
        // SAFETY: the plugin lends tensors and bytes.
        let (tensors, metadata) =
            unsafe { (read_tensors(state, told.tensors)?, read_metadata(told.metadata)?) };
        let bytes: usize = tensors.iter().map(|(_, tensor)| size_of_val(tensor.values())).sum();
        if bytes > MOST_BYTES {
            return misuse(format!("{of} '{name}' would be {bytes} bytes, {MOST_BYTES} are allowed"));
        }
        let _room = reserve(call, 2 * bytes)?;
        let bytes = to_safetensors(&tensors, &metadata);
        let bytes = bytes.map_err(|error| Failure(LATENTD_INVALID, error.to_string()))?;
        let saved = FileToSave { kind, name: &name, bytes: &bytes, replace: told.replace != 0 };
        let saved = call.job.resources().save(&saved)?;
        let Some(saved) = opened(state)?.borrow_mut().number(&saved) else {
            return misuse("more files than anybody needs");
        };
        // SAFETY: it is not null, and the plugin's own.
        unsafe { number.write(saved) };
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

pub(super) unsafe extern "C" fn remove(call: *mut latentd_call, number: latentd_file) -> latentd_status {
    let work = |call: &Call<'_>, state: &mut State<'_>| {
        let file = file(state, number)?;
        allowed(call, state, file.item().kind)?;
        Ok(call.job.resources().remove(&file)?)
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

/// A kind that the manifest asks to save, in a function that has an instance.
fn allowed(call: &Call<'_>, state: &State<'_>, kind: LibraryKind) -> Served<LibraryKind> {
    let name = kind.name();
    if state.objects.is_none() {
        return Err(Failure(
            LATENTD_UNSUPPORTED,
            "files are not written while a request is planned".to_owned(),
        ));
    }
    if call.saves.contains(&kind) {
        return Ok(kind);
    }
    let text = format!("its manifest does not ask to write {name} files: [capabilities] save = ['{name}']");
    Err(Failure(LATENTD_INVALID, text))
}

/// # Safety
/// `list` points to as many elements of as many bytes as it says; texts are lent.
unsafe fn read_tensors(state: &State<'_>, list: latentd_list) -> Served<Vec<(String, Tensor)>> {
    if list.count == 0 {
        return misuse(format!("0 tensors; 1 to {MOST_TENSORS} are written"));
    }
    // SAFETY: as the caller says.
    let saved = unsafe { elements::<latentd_saved_tensor>(list, MOST_TENSORS, "tensors") }?;
    let mut objects = objects(state)?;
    let tensors = saved.into_iter().map(|saved| {
        // SAFETY: the plugin lends a text.
        let name = unsafe { read_text(saved.name) };
        match objects.finished(saved.tensor)? {
            Content::Tensor(tensor) if tensor.values().iter().all(|value| value.is_finite()) => {
                Ok((name, tensor.clone()))
            }
            Content::Tensor(_) => Err(Failure(LATENTD_INVALID, format!("'{name}' has NaN or an infinity"))),
            _ => misuse(format!("'{name}' is no tensor")),
        }
    });
    tensors.collect()
}

/// # Safety
/// It points to as many bytes as it says.
unsafe fn read_metadata(metadata: latentd_bytes) -> Served<BTreeMap<String, String>> {
    if metadata.length == 0 {
        return Ok(BTreeMap::new());
    }
    if metadata.length > METADATA_BYTES {
        return misuse(format!("metadata of {} bytes; {METADATA_BYTES} are allowed", metadata.length));
    }
    // SAFETY: as the caller says.
    let Some(bytes) = (unsafe { read_bytes(metadata) }) else { return misuse("the metadata is null") };
    let read: BTreeMap<String, String> = rmp_serde::from_slice(bytes)
        .map_err(|error| Failure(LATENTD_FAILED, format!("the metadata is no map of texts: {error}")))?;
    if read.len() > MOST_TEXTS {
        return misuse(format!("metadata of {} texts; {MOST_TEXTS} are allowed", read.len()));
    }
    Ok(read)
}

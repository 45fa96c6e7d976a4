//! Files of the library of models.

use std::sync::Arc;

use latentd_plugin_api::abi::{
    LATENTD_NOT_FOUND, latentd_call, latentd_file, latentd_file_info, latentd_handle, latentd_library,
    latentd_list, latentd_status, latentd_text,
};
use rmpv::Value;

use super::named::{file, kind, lend_bytes, opened};
use super::saving;
use super::serving::{Failure, give_back, misuse, objects, read_text, reserve, serve, taken, text};
use crate::plugins::call::{Call, State};
use crate::plugins::objects::Content;
use crate::schema::shorten;
use crate::suggest::advice;

/// Bytes of a file that is given whole.
const MOST_BYTES: u64 = 2 << 30;

pub(super) static LIBRARY: latentd_library = latentd_library {
    size: size_of::<latentd_library>() as u32,
    reserved: 0,
    find: Some(find),
    names: Some(names),
    info: Some(info),
    tensor: Some(tensor),
    open: Some(open),
    save: Some(saving::save),
    remove: Some(saving::remove),
};

unsafe extern "C" fn find(
    call: *mut latentd_call,
    of: latentd_text,
    name: latentd_text,
    number: *mut latentd_file,
) -> latentd_status {
    let work = |call: &Call<'_>, state: &mut State<'_>| {
        if number.is_null() {
            return misuse("file is null");
        }
        // SAFETY: the plugin lends two texts.
        let (of, name) = unsafe { (read_text(of), read_text(name)) };
        let found = call.job.resources().file(kind(&of)?, &name)?;
        let Some(found) = opened(state)?.borrow_mut().number(&found) else {
            return misuse("more files than anybody needs");
        };
        // SAFETY: it is not null, and the plugin's own.
        unsafe { number.write(found) };
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

unsafe extern "C" fn names(
    call: *mut latentd_call,
    of: latentd_text,
    names: *mut latentd_list,
) -> latentd_status {
    let work = |call: &Call<'_>, state: &mut State<'_>| {
        if names.is_null() {
            return misuse("names is null");
        }
        // SAFETY: the plugin lends a text.
        let of = unsafe { read_text(of) };
        let all: Vec<Box<str>> =
            call.job.resources().names(kind(&of)?).into_iter().map(String::into_boxed_str).collect();
        let told: Vec<latentd_text> = all.iter().map(|name| text(name)).collect();
        let list = latentd_list {
            items: told.as_ptr().cast(),
            count: told.len() as u32,
            stride: size_of::<latentd_text>() as u32,
        };
        state.lent.push(Box::new((told, all)));
        // SAFETY: it is not null, and the plugin's own.
        unsafe { names.write(list) };
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

unsafe extern "C" fn info(
    call: *mut latentd_call,
    number: latentd_file,
    info: *mut latentd_file_info,
) -> latentd_status {
    let work = |call: &Call<'_>, state: &mut State<'_>| {
        // SAFETY: the plugin's own struct, which begins with its size.
        let Some(mut told) = (unsafe { taken(info.cast_const()) }) else { return misuse("info is null") };
        let file = file(state, number)?;
        let item = file.item();
        let mut metadata = vec![];
        // What is no file of weights says nothing.
        let said = file.tensors().ok().map(|tensors| tensors.metadata().clone()).unwrap_or_default();
        let said = said.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        // Writing to memory does not fail.
        rmpv::encode::write_value(&mut metadata, &Value::Map(said)).ok();
        let sha256 = call.job.resources().known_sha256(&file).unwrap_or_default();
        let family = item.facts.architecture.clone().or_else(|| item.facts.base_model.clone());
        let texts: Vec<Box<str>> =
            [item.name.clone(), family.unwrap_or_default(), sha256].map(String::into_boxed_str).into();
        let [name, family, sha256] = &texts[..] else { return misuse("no texts") };
        told.kind = text(item.kind.name());
        (told.name, told.family, told.sha256) = (text(name), text(family), text(sha256));
        told.identity = lend_bytes(state, file.identity().digest().to_vec());
        told.metadata = lend_bytes(state, metadata);
        state.lent.push(Box::new(texts));
        // SAFETY: it is not null, and the plugin's own.
        unsafe { give_back(&told, info) };
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

unsafe extern "C" fn tensor(
    call: *mut latentd_call,
    number: latentd_file,
    name: latentd_text,
    tensor: *mut latentd_handle,
) -> latentd_status {
    let work = |call: &Call<'_>, state: &mut State<'_>| {
        if tensor.is_null() {
            return misuse("tensor is null");
        }
        // SAFETY: the plugin lends a text.
        let name = unsafe { read_text(name) };
        let file = file(state, number)?;
        let tensors = file.tensors()?;
        let Some(shape) = tensors.shape(&name) else {
            let advice = advice(&name, tensors.names());
            let text = format!("'{}' has no tensor '{}'{advice}", file.item().name, shorten(&name));
            return Err(Failure(LATENTD_NOT_FOUND, text));
        };
        let bytes = shape.iter().product::<usize>().saturating_mul(size_of::<f32>());
        let lease = reserve(call, bytes)?;
        let read = tensors.tensor(&name).map_err(|error| Failure::from(crate::error::Error::from(error)));
        file.check()?;
        let handle = objects(state)?.allocate(Content::Tensor(read?), Some(lease))?;
        // SAFETY: it is not null, and the plugin's own.
        unsafe { tensor.write(handle) };
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

unsafe extern "C" fn open(
    call: *mut latentd_call,
    number: latentd_file,
    bytes: *mut latentd_handle,
) -> latentd_status {
    let work = |call: &Call<'_>, state: &mut State<'_>| {
        if bytes.is_null() {
            return misuse("bytes is null");
        }
        let file = file(state, number)?;
        let lease = reserve(call, file.item().size().min(MOST_BYTES) as usize)?;
        let content = Content::Bytes(Arc::new(file.bytes(MOST_BYTES)?));
        let handle = objects(state)?.lend_counted(content, Arc::new(lease))?;
        // SAFETY: it is not null, and the plugin's own.
        unsafe { bytes.write(handle) };
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

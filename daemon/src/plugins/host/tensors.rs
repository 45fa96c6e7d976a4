//! Tensors and images by their handles.

use std::sync::Arc;

use latentd_models::Tensor;
use latentd_plugin_api::abi::{
    LATENTD_DENSE, LATENTD_FAILED, LATENTD_FLOAT, LATENTD_IMAGE, LATENTD_INVALID, LATENTD_MEMORY,
    LATENTD_READ, LATENTD_REPLACE, LATENTD_TENSOR, LATENTD_UINT, LATENTD_UNSUPPORTED, LATENTD_WRITE,
    latentd_call, latentd_handle, latentd_map, latentd_status, latentd_tensor_info, latentd_tensors,
};

use sha2::{Digest, Sha256};

use super::serving::{Failure, Served, give_back, misuse, objects, reserve, serve, taken};
use crate::plugins::call::{Call, State};
use crate::plugins::objects::{Content, Image, dense_strides};

pub(super) static TENSORS: latentd_tensors = latentd_tensors {
    size: size_of::<latentd_tensors>() as u32,
    reserved: 0,
    alloc: Some(alloc),
    info: Some(tensor_info),
    r#ref: Some(keep),
    release: Some(release),
    map: Some(map),
    unmap: Some(unmap),
    digest: Some(digest),
};

/// The sizes that a plugin asks for, none of them 0, of so many bytes a number.
pub(super) fn asked_sizes(info: &latentd_tensor_info, bytes: usize) -> Served<(Vec<usize>, usize)> {
    let wrong = |what: String| Err(Failure(LATENTD_INVALID, what));
    let shape = info.shape.get(..info.ndim as usize);
    let Some(shape) = shape.filter(|shape| !shape.is_empty()) else {
        return wrong(format!("{} dimensions; 1 to 8 are possible", info.ndim));
    };
    let sizes: Vec<usize> = shape.iter().filter_map(|size| usize::try_from(*size).ok()).collect();
    let count = sizes.iter().try_fold(1usize, |count, size| count.checked_mul(*size));
    let total =
        count.and_then(|count| count.checked_mul(bytes)).filter(|total| isize::try_from(*total).is_ok());
    match total {
        Some(total) if total > 0 && sizes.len() == shape.len() => Ok((sizes, total)),
        _ => wrong(format!("no tensor has the sizes {shape:?}")),
    }
}

unsafe extern "C" fn alloc(
    call: *mut latentd_call,
    info: *const latentd_tensor_info,
    handle: *mut latentd_handle,
) -> latentd_status {
    let work = |call: &Call<'_>, state: &mut State<'_>| {
        // SAFETY: the plugin lends a struct that begins with its size.
        let Some(info) = (unsafe { taken(info) }) else { return misuse("info is null") };
        if handle.is_null() {
            return misuse("handle is null");
        }
        let is_image = match info.kind {
            LATENTD_TENSOR => false,
            LATENTD_IMAGE => true,
            other => return misuse(format!("kind {other} is neither a tensor nor an image")),
        };
        let wanted = if is_image { (LATENTD_UINT, 8) } else { (LATENTD_FLOAT, 32) };
        if info.bits != 0 && (info.code, info.bits) != wanted {
            let text = "tensors are f32 and images u8 in this version";
            return Err(Failure(LATENTD_UNSUPPORTED, text.to_owned()));
        }
        let (sizes, total) = asked_sizes(&info, if is_image { 1 } else { 4 })?;
        let mut objects = objects(state)?;
        let lease = reserve(call, total)?;
        let no_memory = |_| Failure(LATENTD_MEMORY, format!("{total} bytes cannot be had"));
        let content = if is_image {
            let [1, channels @ (1 | 3 | 4), height, width] = sizes[..] else {
                let text = format!("an image is (1, 1 or 3 or 4, height, width), not {sizes:?}");
                return Err(Failure(LATENTD_INVALID, text));
            };
            let mut pixels = vec![];
            pixels.try_reserve_exact(total).map_err(no_memory)?;
            pixels.resize(total, 0);
            Content::Image(Image { width, height, channels, pixels: Arc::new(pixels) })
        } else {
            let mut values = vec![];
            values.try_reserve_exact(total / 4).map_err(no_memory)?;
            values.resize(total / 4, 0.0);
            Content::Tensor(
                Tensor::new(values, sizes).map_err(|error| Failure(LATENTD_FAILED, error.to_string()))?,
            )
        };
        let made = objects.allocate(content, Some(lease))?;
        // SAFETY: it is not null, and the plugin's own.
        unsafe { handle.write(made) };
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

unsafe extern "C" fn tensor_info(
    call: *mut latentd_call,
    handle: latentd_handle,
    info: *mut latentd_tensor_info,
) -> latentd_status {
    let work = |_: &Call<'_>, state: &mut State<'_>| {
        // SAFETY: the plugin's own struct, which begins with its size.
        let Some(mut told) = (unsafe { taken(info.cast_const()) }) else { return misuse("info is null") };
        // A plan is told of sizes alone.
        let planned = state.opened.filter(|_| state.objects.is_none());
        if let Some([width, height, channels]) = planned.and_then(|opened| opened.borrow().picture(handle)) {
            (told.kind, told.code, told.bits, told.lanes, told.ndim) = (LATENTD_IMAGE, LATENTD_UINT, 8, 1, 4);
            (told.device_type, told.device_id) = (1, 0);
            told.shape = numbers(&[1, channels, height, width]);
            told.strides = numbers(&[width * height * channels, 1, width * channels, channels]);
            // SAFETY: it is not null, and the plugin's own.
            unsafe { give_back(&told, info) };
            return Ok(());
        }
        let mut objects = objects(state)?;
        let content = objects.content(handle)?;
        (told.kind, told.code, told.bits) = match content {
            Content::Tensor(_) => (LATENTD_TENSOR, LATENTD_FLOAT, 32),
            Content::Image(_) => (LATENTD_IMAGE, LATENTD_UINT, 8),
            Content::Bytes(_) => (LATENTD_TENSOR, LATENTD_UINT, 8),
        };
        let dims = content.dims();
        told.lanes = 1;
        told.ndim = dims.len() as u32;
        // The host's memory, in DLPack's numbers.
        (told.device_type, told.device_id) = (1, 0);
        (told.shape, told.strides) = (numbers(&dims), numbers(&content.strides()));
        // SAFETY: it is not null, and the plugin's own.
        unsafe { give_back(&told, info) };
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

fn numbers(sizes: &[usize]) -> [i64; 8] {
    let mut numbers = [0; 8];
    numbers.iter_mut().zip(sizes).for_each(|(number, size)| *number = *size as i64);
    numbers
}

unsafe extern "C" fn keep(call: *mut latentd_call, handle: latentd_handle) -> latentd_status {
    let work = |call: &Call<'_>, state: &mut State<'_>| {
        let mut objects = objects(state)?;
        let bytes = objects.uncounted(handle)?;
        let lease = bytes.map(|bytes| reserve(call, bytes)).transpose()?;
        Ok(objects.keep(handle, lease)?)
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

unsafe extern "C" fn release(call: *mut latentd_call, handle: latentd_handle) -> latentd_status {
    // SAFETY: the plugin names a call.
    unsafe { serve(call, |_, state| Ok(objects(state)?.release(handle)?)) }
}

unsafe extern "C" fn unmap(call: *mut latentd_call, handle: latentd_handle) -> latentd_status {
    // SAFETY: the plugin names a call.
    unsafe { serve(call, |_, state| Ok(objects(state)?.unmap(handle)?)) }
}

unsafe extern "C" fn digest(
    call: *mut latentd_call,
    handle: latentd_handle,
    sha256: *mut u8,
) -> latentd_status {
    let work = |_: &Call<'_>, state: &mut State<'_>| {
        if sha256.is_null() {
            return misuse("sha256 is null");
        }
        let mut objects = objects(state)?;
        let content = objects.readable_content(handle)?;
        let dims = content.dims();
        let mut hash = Sha256::new();
        hash.update([u8::try_from(dims.len()).unwrap_or(u8::MAX)]);
        for size in dims {
            hash.update((size as u64).to_le_bytes());
        }
        match content {
            Content::Tensor(tensor) => {
                hash.update([LATENTD_FLOAT, 32]);
                for value in tensor.values() {
                    hash.update(value.to_le_bytes());
                }
            }
            Content::Image(Image { channels, pixels, .. }) => {
                hash.update([LATENTD_UINT, 8]);
                for channel in 0..*channels {
                    let plane: Vec<u8> = pixels.iter().skip(channel).step_by(*channels).copied().collect();
                    hash.update(plane);
                }
            }
            Content::Bytes(bytes) => {
                hash.update([LATENTD_UINT, 8]);
                hash.update(bytes.as_slice());
            }
        }
        let hash: [u8; 32] = hash.finalize().into();
        // SAFETY: there are 32 bytes of the plugin's own, by its word.
        unsafe { sha256.copy_from_nonoverlapping(hash.as_ptr(), hash.len()) };
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

unsafe extern "C" fn map(
    call: *mut latentd_call,
    handle: latentd_handle,
    map: *mut latentd_map,
) -> latentd_status {
    let work = |_: &Call<'_>, state: &mut State<'_>| {
        // SAFETY: the plugin's own struct, which begins with its size.
        let Some(mut asked) = (unsafe { taken(map.cast_const()) }) else { return misuse("map is null") };
        let mut objects = objects(state)?;
        let content = objects.content(handle)?;
        let (is_image, dims, stored) =
            (matches!(content, Content::Image(_)), content.dims(), content.strides());
        let is_bytes = matches!(content, Content::Bytes(_));
        let as_float = match (asked.bits, asked.code) {
            (0, _) => false,
            (32, LATENTD_FLOAT) if !is_bytes => is_image,
            (8, LATENTD_UINT) if is_image || is_bytes => false,
            (bits, code) => {
                let text = format!("no map gives numbers of {bits} bits, code {code}: f32, or u8 of images");
                return Err(Failure(LATENTD_UNSUPPORTED, text));
            }
        };
        let dense = match asked.layout {
            // A tensor lies so.
            LATENTD_DENSE => is_image,
            _ => false,
        };
        let (data, bytes) = match asked.mode {
            LATENTD_READ if dense => objects.read_planes(handle, as_float)?,
            LATENTD_READ if as_float => objects.read_as_float(handle)?,
            LATENTD_READ => objects.read(handle)?,
            LATENTD_WRITE | LATENTD_REPLACE if dense || as_float => {
                let text = "only what is read is converted: write as it is stored";
                return Err(Failure(LATENTD_UNSUPPORTED, text.to_owned()));
            }
            LATENTD_WRITE | LATENTD_REPLACE => objects.write(handle)?,
            other => return misuse(format!("no mapping has mode {other}")),
        };
        (asked.code, asked.bits) =
            if is_bytes || (is_image && !as_float) { (LATENTD_UINT, 8) } else { (LATENTD_FLOAT, 32) };
        asked.lanes = 1;
        asked.strides = numbers(&if dense { dense_strides(&dims) } else { stored });
        (asked.data, asked.bytes) = (data.cast(), bytes as u64);
        // SAFETY: it is not null, and the plugin's own.
        unsafe { give_back(&asked, map) };
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

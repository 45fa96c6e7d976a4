//! What plugins may call: the host's table and its services.
//!
//! Each function takes what a plugin gives it for what it may be: null, misaligned in size, from the wrong thread. A pointer
//! that is none cannot be told; a plugin that runs within the daemon is trusted that far.

use std::any::Any;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use latentd_models::Tensor;
use latentd_plugin_api::abi::{
    LATENTD_ABI_MAJOR, LATENTD_ABI_MINOR, LATENTD_CANCELLED, LATENTD_DEBUG, LATENTD_DENSE, LATENTD_ERROR,
    LATENTD_FAILED, LATENTD_FLOAT, LATENTD_IMAGE, LATENTD_INVALID, LATENTD_JOBS, LATENTD_MEMORY,
    LATENTD_MISUSE, LATENTD_OK, LATENTD_READ, LATENTD_REPLACE, LATENTD_TENSOR, LATENTD_TENSORS, LATENTD_UINT,
    LATENTD_UNET_BLOCK, LATENTD_UNSUPPORTED, LATENTD_WARN, LATENTD_WRITE, latentd_bytes, latentd_call,
    latentd_handle, latentd_host, latentd_jobs, latentd_list, latentd_map, latentd_plan, latentd_site,
    latentd_status, latentd_tensor_info, latentd_tensors, latentd_text, latentd_want,
};
use tracing::{debug, error, info, warn};

use super::call::{Call, State, Want};
use super::objects::{Content, Image, Misuse, Objects, dense_strides};
use crate::error::Class;
use crate::memory::Lease;

/// Bytes of a line of the log, or a text of an error or notice.
const TEXT_BYTES: usize = 4096;
/// Notices of one call.
const MOST_NOTICES: usize = 64;
/// Bytes that a plan may leave for its instances.
const NOTE_BYTES: u64 = 1 << 20;
/// Places in the UNet that a plan may name.
const MOST_SITES: u32 = 4096;
/// Slots that a stage may have.
const MOST_SLOTS: u32 = 4096;

/// A text for a plugin, lent as long as `text` lives.
pub(super) const fn text(text: &str) -> latentd_text {
    latentd_text { data: text.as_ptr().cast(), length: text.len() as u64 }
}

/// Bytes for a plugin, lent as long as `bytes` live.
pub(super) fn bytes(bytes: &[u8]) -> latentd_bytes {
    latentd_bytes { data: bytes.as_ptr().cast(), length: bytes.len() as u64 }
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
};

/// The calls that collect a plan's answer.
pub(super) static PLAN: latentd_plan = latentd_plan {
    size: size_of::<latentd_plan>() as u32,
    reserved: 0,
    stage: Some(plan_stage),
    note: Some(plan_note),
};

static JOBS: latentd_jobs = latentd_jobs {
    size: size_of::<latentd_jobs>() as u32,
    reserved: 0,
    cancelled: Some(cancelled),
    notice: Some(notice),
};

static TENSORS: latentd_tensors = latentd_tensors {
    size: size_of::<latentd_tensors>() as u32,
    reserved: 0,
    alloc: Some(alloc),
    info: Some(tensor_info),
    r#ref: Some(keep),
    release: Some(release),
    map: Some(map),
    unmap: Some(unmap),
};

/// Why a service fails.
struct Failure(latentd_status, String);

type Served<T = ()> = Result<T, Failure>;

fn misuse<T>(text: impl Into<String>) -> Served<T> {
    Err(Failure(LATENTD_MISUSE, text.into()))
}

impl From<Misuse> for Failure {
    fn from(misuse: Misuse) -> Self {
        Self(LATENTD_MISUSE, misuse.to_string())
    }
}

/// The call that a plugin names, if it is one.
///
/// # Safety
/// `call` is null, or what a plugin was given with a call that has not returned.
unsafe fn call_of<'a>(call: *mut latentd_call) -> Option<&'a Call<'a>> {
    // SAFETY: it came from `Call::pointer`, by the caller's word.
    unsafe { call.cast::<Call<'a>>().as_ref() }
}

/// Does what a service does; why it fails is left with the call. A panic of ours is a failure of that call.
///
/// # Safety
/// As [`call_of`].
unsafe fn serve(
    call: *mut latentd_call,
    work: impl FnOnce(&Call<'_>, &mut State<'_>) -> Served,
) -> latentd_status {
    // SAFETY: as the caller says.
    let Some(call) = (unsafe { call_of(call) }) else { return LATENTD_MISUSE };
    if !call.is_its_thread() {
        return LATENTD_MISUSE;
    }
    call.with(|state| {
        let done = catch_unwind(AssertUnwindSafe(|| work(call, state)));
        match done.unwrap_or_else(|panic| Err(Failure(LATENTD_FAILED, panic_text(panic.as_ref())))) {
            Ok(()) => {
                state.error.clear();
                LATENTD_OK
            }
            Err(Failure(status, text)) => {
                state.last_failure = Some((status, text.clone()));
                state.error = text;
                status
            }
        }
    })
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    format!("the daemon failed: {text}; please report it")
}

/// A plugin's text, cut to a sane length; what is no UTF-8 is replaced.
///
/// # Safety
/// `text` points to as many bytes as it says, or is null.
unsafe fn read_text(text: latentd_text) -> String {
    if text.data.is_null() {
        return String::new();
    }
    let length = usize::try_from(text.length).unwrap_or(usize::MAX).min(TEXT_BYTES);
    // SAFETY: so many bytes are there, by the caller's word.
    let bytes = unsafe { std::slice::from_raw_parts(text.data.cast::<u8>(), length) };
    String::from_utf8_lossy(bytes).into_owned()
}

/// Without what terminals take for commands.
fn on_one_line(text: &str) -> String {
    text.trim_end().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

unsafe extern "C" fn service(id: latentd_text) -> *const c_void {
    // SAFETY: the plugin lends a text.
    match unsafe { read_text(id) }.as_str() {
        LATENTD_JOBS => (&raw const JOBS).cast(),
        LATENTD_TENSORS => (&raw const TENSORS).cast(),
        _ => std::ptr::null(),
    }
}

unsafe extern "C" fn log(call: *mut latentd_call, level: u32, line: latentd_text) {
    // SAFETY: the plugin lends a text, and a call or null.
    let (line, call) = unsafe { (read_text(line), call_of(call)) };
    let plugin = call.map_or("?", |call| call.plugin);
    let line = on_one_line(&line);
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

unsafe extern "C" fn plan_stage(call: *mut latentd_call, want: *const latentd_want) -> latentd_status {
    let work = |_: &Call<'_>, state: &mut State<'_>| {
        let Some(plan) = &mut state.plan else { return misuse("stages are wanted within job.plan") };
        // SAFETY: the plugin lends a struct that begins with its size.
        let Some(want) = (unsafe { taken(want) }) else { return misuse("the want is null") };
        // SAFETY: the plugin lends a text.
        let stage = unsafe { read_text(want.stage) };
        let is_share = |share: f64| (0.0..=1.0).contains(&share);
        if !is_share(want.from) || !is_share(want.until) || (want.until < want.from) {
            let text = format!("{stage} from {} until {}: shares of 0 to 1 are meant", want.from, want.until);
            return misuse(text);
        }
        // SAFETY: the plugin lends a list.
        let sites = unsafe { read_sites(want.sites) }?;
        if !sites.is_empty() && stage != LATENTD_UNET_BLOCK {
            return misuse(format!("{stage} has no sites; {LATENTD_UNET_BLOCK} has"));
        }
        plan.wants.retain(|other| other.stage != stage);
        plan.wants.push(Want { stage, from: want.from, until: want.until, sites });
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

/// Places that a plan names, each as part and index.
///
/// # Safety
/// `sites` points to as many elements of as many bytes as it says, or is empty.
unsafe fn read_sites(sites: latentd_list) -> Served<Vec<(u32, u32)>> {
    let latentd_list { items, count, stride } = sites;
    if count == 0 {
        return Ok(vec![]);
    }
    if items.is_null() || count > MOST_SITES || (stride as usize) < size_of::<latentd_site>() {
        return misuse(format!("{count} sites of {stride} bytes each, at {items:?}"));
    }
    let site = |index: u32| {
        let offset = index as usize * stride as usize;
        // SAFETY: so many bytes are there, by the caller's word.
        let site = unsafe { items.cast::<u8>().add(offset).cast::<latentd_site>().read_unaligned() };
        (site.part, site.index)
    };
    Ok((0..count).map(site).collect())
}

unsafe extern "C" fn plan_note(call: *mut latentd_call, note: latentd_bytes) -> latentd_status {
    let work = |_: &Call<'_>, state: &mut State<'_>| {
        let Some(plan) = &mut state.plan else { return misuse("notes are left within job.plan") };
        if note.length > NOTE_BYTES || (note.data.is_null() && note.length > 0) {
            return misuse(format!("a note of {} bytes; {NOTE_BYTES} are allowed", note.length));
        }
        if note.length == 0 {
            plan.note.clear();
            return Ok(());
        }
        // SAFETY: the plugin lends so many bytes.
        let bytes = unsafe { std::slice::from_raw_parts(note.data.cast::<u8>(), note.length as usize) };
        plan.note = bytes.to_vec();
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

unsafe extern "C" fn cancelled(call: *mut latentd_call) -> u32 {
    // SAFETY: the plugin names a call; the job may be asked from any thread.
    let call = unsafe { call_of(call) };
    u32::from(call.is_some_and(|call| call.job.is_cancelled()))
}

unsafe extern "C" fn notice(call: *mut latentd_call, text: latentd_text) -> latentd_status {
    let work = |_: &Call<'_>, state: &mut State<'_>| {
        // SAFETY: the plugin lends a text.
        let text = on_one_line(&unsafe { read_text(text) });
        if !text.is_empty() && !state.notices.contains(&text) && state.notices.len() < MOST_NOTICES {
            state.notices.push(text);
        }
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

fn objects<'a>(state: &'a mut State<'_>) -> Served<&'a mut Objects> {
    match state.objects.as_deref_mut() {
        Some(objects) => Ok(objects),
        None => misuse("there are no tensors where a job is planned"),
    }
}

/// A struct or table of the plugin's as ours: what it did not know yet is 0, what we do not know is left out.
///
/// # Safety
/// `given` is null, or begins with its size and has as many bytes. Zeros are a value of `T`: its fields are numbers, pointers
/// and functions that may lack.
pub(super) unsafe fn taken<T>(given: *const T) -> Option<T> {
    if given.is_null() {
        return None;
    }
    // SAFETY: it begins with its size, by the caller's word.
    let size = unsafe { given.cast::<u32>().read_unaligned() } as usize;
    let mut own = std::mem::MaybeUninit::<T>::zeroed();
    let (from, to) = (given.cast::<u8>(), own.as_mut_ptr().cast::<u8>());
    // SAFETY: both have so many bytes; zeros are a value of the rest.
    unsafe {
        std::ptr::copy_nonoverlapping(from, to, size.min(size_of::<T>()));
        Some(own.assume_init())
    }
}

/// Gives a struct back to a plugin, as far as it knows it. `size` stays as it was.
///
/// # Safety
/// As [`taken`], and nobody else looks at it now.
unsafe fn give_back<T>(own: &T, given: *mut T) {
    // SAFETY: it begins with its size, by the caller's word.
    let size = unsafe { given.cast_const().cast::<u32>().read_unaligned() } as usize;
    let (from, to) = (std::ptr::from_ref(own).cast::<u8>(), given.cast::<u8>());
    let bytes = size.min(size_of::<T>()).saturating_sub(size_of::<u32>());
    // SAFETY: both have so many bytes behind their sizes.
    unsafe { std::ptr::copy_nonoverlapping(from.add(size_of::<u32>()), to.add(size_of::<u32>()), bytes) };
}

/// The sizes that a plugin asks for, none of them 0, of so many bytes a number.
fn asked_sizes(info: &latentd_tensor_info, bytes: usize) -> Served<(Vec<usize>, usize)> {
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
        let objects = objects(state)?;
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
        let content = objects(state)?.content(handle)?;
        (told.kind, told.code, told.bits) = match content {
            Content::Tensor(_) => (LATENTD_TENSOR, LATENTD_FLOAT, 32),
            Content::Image(_) => (LATENTD_IMAGE, LATENTD_UINT, 8),
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
        let objects = objects(state)?;
        let bytes = objects.uncounted(handle)?;
        let lease = bytes.map(|bytes| reserve(call, bytes)).transpose()?;
        Ok(objects.keep(handle, lease)?)
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

/// Counts memory for a plugin.
fn reserve(call: &Call<'_>, bytes: usize) -> Served<Lease> {
    call.job.reserve(bytes as u64, call.plugin).map_err(|error| {
        let status = if error.class == Class::Cancelled { LATENTD_CANCELLED } else { LATENTD_MEMORY };
        Failure(status, error.text)
    })
}

unsafe extern "C" fn release(call: *mut latentd_call, handle: latentd_handle) -> latentd_status {
    // SAFETY: the plugin names a call.
    unsafe { serve(call, |_, state| Ok(objects(state)?.release(handle)?)) }
}

unsafe extern "C" fn unmap(call: *mut latentd_call, handle: latentd_handle) -> latentd_status {
    // SAFETY: the plugin names a call.
    unsafe { serve(call, |_, state| Ok(objects(state)?.unmap(handle)?)) }
}

unsafe extern "C" fn map(
    call: *mut latentd_call,
    handle: latentd_handle,
    map: *mut latentd_map,
) -> latentd_status {
    let work = |_: &Call<'_>, state: &mut State<'_>| {
        // SAFETY: the plugin's own struct, which begins with its size.
        let Some(mut asked) = (unsafe { taken(map.cast_const()) }) else { return misuse("map is null") };
        let objects = objects(state)?;
        let content = objects.content(handle)?;
        let (is_image, dims, stored) =
            (matches!(content, Content::Image(_)), content.dims(), content.strides());
        let as_float = match (asked.bits, asked.code) {
            (0, _) => false,
            (32, LATENTD_FLOAT) => is_image,
            (8, LATENTD_UINT) if is_image => false,
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
            if is_image && !as_float { (LATENTD_UINT, 8) } else { (LATENTD_FLOAT, 32) };
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

//! How a service is served: what a plugin gives is taken for what it may be, and why it fails is left with the call.

use std::any::Any;
use std::cell::RefMut;
use std::panic::{AssertUnwindSafe, catch_unwind};

use latentd_plugin_api::abi::{
    LATENTD_BUSY, LATENTD_CANCELLED, LATENTD_FAILED, LATENTD_INVALID, LATENTD_MEMORY, LATENTD_MISUSE,
    LATENTD_MODEL, LATENTD_NOT_FOUND, LATENTD_OK, LATENTD_UNSUPPORTED, latentd_bytes, latentd_call,
    latentd_list, latentd_status, latentd_text,
};

use crate::error::{Class, Error};
use crate::memory::Lease;
use crate::plugins::call::{Call, State};
use crate::plugins::objects::{Misuse, Objects};

/// Bytes of a line of the log, or a text of an error or notice.
const TEXT_BYTES: usize = 4096;

/// A text for a plugin, lent as long as `text` lives.
pub(in crate::plugins) const fn text(text: &str) -> latentd_text {
    latentd_text { data: text.as_ptr().cast(), length: text.len() as u64 }
}

/// Bytes for a plugin, lent as long as `bytes` live.
pub(in crate::plugins) fn bytes(bytes: &[u8]) -> latentd_bytes {
    latentd_bytes { data: bytes.as_ptr().cast(), length: bytes.len() as u64 }
}

/// Why a service fails.
pub(super) struct Failure(pub latentd_status, pub String);

pub(super) type Served<T = ()> = Result<T, Failure>;

pub(super) fn misuse<T>(text: impl Into<String>) -> Served<T> {
    Err(Failure(LATENTD_MISUSE, text.into()))
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match error.class {
            Class::InvalidParams => LATENTD_INVALID,
            Class::NotFound => LATENTD_NOT_FOUND,
            Class::Busy => LATENTD_BUSY,
            Class::Cancelled => LATENTD_CANCELLED,
            Class::Model => LATENTD_MODEL,
            Class::Memory => LATENTD_MEMORY,
            Class::Unsupported => LATENTD_UNSUPPORTED,
            Class::Internal | Class::Plugin => LATENTD_FAILED,
        };
        Self(status, error.text)
    }
}

impl From<latentd_models::Error> for Failure {
    fn from(error: latentd_models::Error) -> Self {
        Error::from(error).into()
    }
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
pub(in crate::plugins) unsafe fn call_of<'a>(call: *mut latentd_call) -> Option<&'a Call<'a>> {
    // SAFETY: it came from `Call::pointer`, by the caller's word.
    unsafe { call.cast::<Call<'a>>().as_ref() }
}

/// Does what a service does; why it fails is left with the call. A panic of ours is a failure of that call.
///
/// # Safety
/// As [`call_of`].
pub(super) unsafe fn serve(
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
        answered(state, done)
    })
}

/// As [`serve`], for a service that may call functions of plugins: `work` locks what the call leaves where it needs it.
///
/// # Safety
/// As [`call_of`].
pub(super) unsafe fn serve_nested(
    call: *mut latentd_call,
    work: impl FnOnce(&Call<'_>) -> Served,
) -> latentd_status {
    // SAFETY: as the caller says.
    let Some(call) = (unsafe { call_of(call) }) else { return LATENTD_MISUSE };
    if !call.is_its_thread() {
        return LATENTD_MISUSE;
    }
    let done = catch_unwind(AssertUnwindSafe(|| work(call)));
    call.with(|state| answered(state, done))
}

/// What a service that fails leaves with the call, and answers.
///
/// # Safety
/// As [`call_of`].
pub(in crate::plugins) unsafe fn fail_service(
    call: *mut latentd_call,
    status: latentd_status,
    text: &str,
) -> latentd_status {
    // SAFETY: as the caller says.
    unsafe { serve(call, |_, _| Err(Failure(status, text.to_owned()))) }
}

/// Leaves with the call why a service fails.
fn answered(state: &mut State<'_>, done: std::thread::Result<Served>) -> latentd_status {
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
pub(in crate::plugins) unsafe fn read_text(text: latentd_text) -> String {
    if text.data.is_null() {
        return String::new();
    }
    let length = usize::try_from(text.length).unwrap_or(usize::MAX).min(TEXT_BYTES);
    // SAFETY: so many bytes are there, by the caller's word.
    let bytes = unsafe { std::slice::from_raw_parts(text.data.cast::<u8>(), length) };
    String::from_utf8_lossy(bytes).into_owned()
}

/// Without what terminals take for commands.
pub(in crate::plugins) fn on_one_line(text: &str) -> String {
    text.trim_end().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A plugin's bytes; `None` if they are null, and yet some.
///
/// # Safety
/// `bytes` point to as many bytes as they say for as long as `'a`, or are null.
pub(super) unsafe fn read_bytes<'a>(bytes: latentd_bytes) -> Option<&'a [u8]> {
    if bytes.length == 0 {
        return Some(&[]);
    }
    let length = usize::try_from(bytes.length).ok().filter(|length| isize::try_from(*length).is_ok())?;
    // SAFETY: as the caller says.
    (!bytes.data.is_null()).then(|| unsafe { std::slice::from_raw_parts(bytes.data.cast::<u8>(), length) })
}

pub(super) fn objects<'a>(state: &State<'a>) -> Served<RefMut<'a, Objects>> {
    match state.objects {
        Some(objects) => Ok(objects.borrow_mut()),
        None => misuse("there are no tensors where a job is planned"),
    }
}

/// A struct or table of the plugin's as ours: what it did not know yet is 0, what we do not know is left out.
///
/// # Safety
/// `given` is null, or begins with its size and has as many bytes. Zeros are a value of `T`: its fields are numbers, pointers
/// and functions that may lack.
pub(in crate::plugins) unsafe fn taken<T>(given: *const T) -> Option<T> {
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

/// The elements of a plugin's list, of which there may be `most`: what they do not know yet is 0, what we do not know is left
/// out. An error calls them `what`.
///
/// # Safety
/// `list` points to as many elements of as many bytes as it says, or is empty. Zeros are a value of `T`.
pub(super) unsafe fn elements<T: Copy>(list: latentd_list, most: u32, what: &str) -> Served<Vec<T>> {
    let latentd_list { items, count, stride } = list;
    if count == 0 {
        return Ok(vec![]);
    }
    if items.is_null() || count > most || stride == 0 {
        return misuse(format!("{count} {what} of {stride} bytes each, at {items:?}; {most} are possible"));
    }
    let bytes = (stride as usize).min(size_of::<T>());
    let element = |index: u32| {
        let mut own = std::mem::MaybeUninit::<T>::zeroed();
        // SAFETY: so many bytes are there, by the caller's word; zeros are a value of the rest.
        unsafe {
            let from = items.cast::<u8>().add(index as usize * stride as usize);
            std::ptr::copy_nonoverlapping(from, own.as_mut_ptr().cast::<u8>(), bytes);
            own.assume_init()
        }
    };
    Ok((0..count).map(element).collect())
}

/// The rows of `all` that a plugin names, each once; `None` for all of them.
///
/// # Safety
/// `rows` points to as many numbers as `count` says, or is null.
pub(super) unsafe fn row_numbers(rows: *const u32, count: u32, all: usize) -> Served<Option<Vec<usize>>> {
    let count = count as usize;
    if rows.is_null() {
        return if count == 0 { Ok(None) } else { misuse(format!("{count} rows that are null")) };
    }
    let invalid = |text: String| Err(Failure(LATENTD_INVALID, text));
    if count == 0 || count > all {
        return invalid(format!("it names {count} of {all} rows"));
    }
    // SAFETY: so many are there, by the caller's word.
    let rows: Vec<usize> = (0..count).map(|at| unsafe { rows.add(at).read_unaligned() } as usize).collect();
    for (at, row) in rows.iter().enumerate() {
        if *row >= all || rows.get(..at).is_some_and(|before| before.contains(row)) {
            return invalid(format!("row {row} of {all} is none, or named twice"));
        }
    }
    Ok(Some(rows))
}

/// Gives a struct back to a plugin, as far as it knows it. `size` stays as it was.
///
/// # Safety
/// As [`taken`], and nobody else looks at it now.
pub(in crate::plugins) unsafe fn give_back<T>(own: &T, given: *mut T) {
    // SAFETY: it begins with its size, by the caller's word.
    let size = unsafe { given.cast_const().cast::<u32>().read_unaligned() } as usize;
    let (from, to) = (std::ptr::from_ref(own).cast::<u8>(), given.cast::<u8>());
    let bytes = size.min(size_of::<T>()).saturating_sub(size_of::<u32>());
    // SAFETY: both have so many bytes behind their sizes.
    unsafe { std::ptr::copy_nonoverlapping(from.add(size_of::<u32>()), to.add(size_of::<u32>()), bytes) };
}

/// Counts memory for a plugin.
pub(super) fn reserve(call: &Call<'_>, bytes: usize) -> Served<Lease> {
    call.job.reserve(bytes as u64, call.plugin).map_err(|error| {
        let status = if error.class == Class::Cancelled { LATENTD_CANCELLED } else { LATENTD_MEMORY };
        Failure(status, error.text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_lists_what_elements_do_not_know_is_zero_and_what_we_do_not_know_is_left_out() {
        #[derive(Clone, Copy, Debug, PartialEq)]
        #[repr(C)]
        struct Ours {
            a: u32,
            b: u32,
            c: u32,
        }
        let numbers: [u32; 12] = std::array::from_fn(|index| index as u32 + 1);
        let read = |stride: u32, count: u32| {
            let list = latentd_list { items: numbers.as_ptr().cast(), count, stride };
            // SAFETY: the rows below stay within the numbers.
            unsafe { elements::<Ours>(list, 3, "ours") }.map_err(|Failure(status, text)| (status, text))
        };
        let ours = |a, b, c| Ours { a, b, c };
        assert_eq!(read(4, 3), Ok(vec![ours(1, 0, 0), ours(2, 0, 0), ours(3, 0, 0)]));
        assert_eq!(read(8, 2), Ok(vec![ours(1, 2, 0), ours(3, 4, 0)]));
        assert_eq!(read(12, 2), Ok(vec![ours(1, 2, 3), ours(4, 5, 6)]));
        assert_eq!(read(16, 3), Ok(vec![ours(1, 2, 3), ours(5, 6, 7), ours(9, 10, 11)]));
        assert_eq!(read(0, 0), Ok(vec![]));
        for (stride, count) in [(0, 1), (12, 4)] {
            let (status, text) = read(stride, count).expect_err("refused");
            assert_eq!(status, LATENTD_MISUSE);
            assert!(text.contains(&format!("{count} ours of {stride} bytes each")), "{text}");
        }
        let nowhere = latentd_list { items: std::ptr::null(), count: 1, stride: 12 };
        // SAFETY: nothing is there, which is looked at first.
        assert!(unsafe { elements::<Ours>(nowhere, 3, "ours") }.is_err());
    }
}

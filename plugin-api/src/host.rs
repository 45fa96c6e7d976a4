//! The host's tables, as `init` was given them.

use std::ffi::c_void;
use std::sync::OnceLock;

use crate::abi::{
    LATENTD_CACHE, LATENTD_EVALS, LATENTD_FAILED, LATENTD_JOBS, LATENTD_OK, LATENTD_OPS, LATENTD_TENSORS,
    LATENTD_UNSUPPORTED, latentd_cache, latentd_evals, latentd_host, latentd_jobs, latentd_list, latentd_ops,
    latentd_status, latentd_tensors, latentd_text,
};
use crate::error::{Error, Result};

/// What the host has for us. All of it is constant while the library is loaded.
pub(crate) struct Host {
    pub table: &'static latentd_host,
    pub jobs: &'static latentd_jobs,
    pub tensors: &'static latentd_tensors,
    /// Services that not every host has.
    pub evals: Option<&'static latentd_evals>,
    pub ops: Option<&'static latentd_ops>,
    pub cache: Option<&'static latentd_cache>,
}

impl Host {
    /// A service that not all hosts have.
    pub(crate) fn service<T>(&self, id: &str) -> Result<&'static T> {
        let service = self.table.service.ok_or_else(|| Error::failed("the host has no services"))?;
        // SAFETY: the id is lent until it returns; by its id it is a table of this type.
        let table = unsafe { whole(service(lend(id))) };
        table.ok_or_else(|| Error::unsupported(format!("this latentd has no {id}")))
    }
}

static HOST: OnceLock<Host> = OnceLock::new();

/// The host. Nothing of a plugin is called before `init` was.
pub(crate) fn host() -> Option<&'static Host> {
    HOST.get()
}

/// A text that is lent.
pub(crate) fn lend(text: &str) -> latentd_text {
    latentd_text { data: text.as_ptr().cast(), length: text.len() as u64 }
}

/// A text that is lent to us; empty where it is no UTF-8.
///
/// # Safety
/// It has as many bytes as it says, for as long as `'a`.
pub(crate) unsafe fn text<'a>(text: latentd_text) -> &'a str {
    // SAFETY: as the caller says.
    let bytes = unsafe { bytes(text.data.cast(), text.length) };
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// Bytes that are lent to us.
///
/// # Safety
/// There are as many as `length` says, for as long as `'a`, or `data` is null.
pub(crate) unsafe fn bytes<'a>(data: *const c_void, length: u64) -> &'a [u8] {
    if data.is_null() || length == 0 {
        return &[];
    }
    // SAFETY: as the caller says.
    unsafe { std::slice::from_raw_parts(data.cast(), length as usize) }
}

/// A struct of which the host knows so many bytes, as ours: what an older host does not know is zero.
///
/// # Safety
/// There are so many bytes. Zeros are a value of `T`: its fields are numbers, pointers, and functions that may lack.
unsafe fn as_ours<T>(given: *const u8, size: usize) -> T {
    let mut own = std::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: both have so many bytes; zeros are a value of the rest.
    unsafe {
        std::ptr::copy_nonoverlapping(given, own.as_mut_ptr().cast::<u8>(), size.min(size_of::<T>()));
        own.assume_init()
    }
}

/// A struct or table that is lent and begins with its size, as far as the host knows it.
///
/// # Safety
/// `given` is null, or begins with its size. Zeros are a value of `T`.
pub(crate) unsafe fn lent<T>(given: *const T) -> Result<T> {
    if given.is_null() {
        return Err(Error::failed("an argument is missing"));
    }
    // SAFETY: it begins with its size, which is of the bytes that are there.
    unsafe {
        let size = given.cast::<u32>().read() as usize;
        Ok(as_ours(given.cast(), size))
    }
}

/// Gives back a struct that [`lent`] took, as far as the host knows it.
///
/// # Safety
/// As [`lent`]; it may be written to.
pub(crate) unsafe fn give_back<T>(own: &T, given: *mut T) {
    // SAFETY: it begins with its size, which is of the bytes that are there.
    unsafe {
        let size = (given.cast::<u32>().read() as usize).min(size_of::<T>());
        std::ptr::copy_nonoverlapping(std::ptr::from_ref(own).cast::<u8>(), given.cast::<u8>(), size);
    }
}

/// The elements of a list, as far as the host and we know them.
///
/// # Safety
/// The list is as the ABI says, of elements that begin as `T` does. Zeros are a value of `T`.
pub(crate) unsafe fn items<T>(list: latentd_list) -> Result<Vec<T>> {
    if list.count > 0 && (list.items.is_null() || list.stride == 0) {
        return Err(Error::failed("a list without elements"));
    }
    let item = |index: u32| {
        let at = index as usize * list.stride as usize;
        // SAFETY: as the caller says.
        unsafe { as_ours(list.items.cast::<u8>().add(at), list.stride as usize) }
    };
    Ok((0..list.count).map(item).collect())
}

/// A table of the host's as ours: functions that it does not have yet lack.
///
/// # Safety
/// `table` is null, or begins with its size and stays. Zeros are a value of `T`: its fields are numbers, and functions that may
/// lack.
unsafe fn whole<T>(table: *const c_void) -> Option<&'static T> {
    if table.is_null() {
        return None;
    }
    // SAFETY: it begins with its size.
    let size = unsafe { table.cast::<u32>().read() } as usize;
    if size >= size_of::<T>() {
        // SAFETY: it is as large as ours, and a constant that stays.
        return Some(unsafe { &*table.cast::<T>() });
    }
    // SAFETY: there are so many bytes; zeros are a value.
    Some(Box::leak(Box::new(unsafe { as_ours::<T>(table.cast(), size) })))
}

/// Keeps the host's tables.
///
/// # Safety
/// `given` is what the ABI says of `init`'s argument.
pub(crate) unsafe fn init(given: *const latentd_host) -> latentd_status {
    // SAFETY: a constant table that begins with its size.
    let Some(table) = (unsafe { whole::<latentd_host>(given.cast()) }) else { return LATENTD_UNSUPPORTED };
    let Some(service) = table.service else { return LATENTD_FAILED };
    // SAFETY: the id is lent until it returns; tables begin with their sizes.
    let (jobs, tensors) =
        unsafe { (whole(service(lend(LATENTD_JOBS))), whole(service(lend(LATENTD_TENSORS)))) };
    let (Some(jobs), Some(tensors)) = (jobs, tensors) else { return LATENTD_UNSUPPORTED };
    // SAFETY: as above. What not every plugin needs may lack.
    let (evals, ops) = unsafe { (whole(service(lend(LATENTD_EVALS))), whole(service(lend(LATENTD_OPS)))) };
    // SAFETY: as above.
    let cache = unsafe { whole(service(lend(LATENTD_CACHE))) };
    HOST.get_or_init(|| Host { table, jobs, tensors, evals, ops, cache });
    LATENTD_OK
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::latentd_tag;

    /// As a version knows it that has a field more than the first.
    #[repr(C)]
    #[derive(Debug, PartialEq)]
    struct Later {
        size: u32,
        reserved: u32,
        number: u64,
        more: u64,
    }

    #[test]
    fn what_an_older_host_does_not_know_is_zero() {
        let first: [u64; 3] = [16, 7, 99];
        // SAFETY: it begins with its size, which is of the bytes that are there.
        let taken = unsafe { lent(first.as_ptr().cast::<Later>()) }.expect("taken");
        assert_eq!(taken, Later { size: 16, reserved: 0, number: 7, more: 0 });
        let mut given: [u64; 3] = [16, 0, 99];
        // SAFETY: as before.
        unsafe { give_back(&Later { size: 16, reserved: 0, number: 5, more: 6 }, given.as_mut_ptr().cast()) };
        assert_eq!(given, [16, 5, 99], "what lies behind it is not the plugin's");
        let elements: [u64; 4] = [24, 1, 24, 2];
        let list = latentd_list { items: elements.as_ptr().cast(), count: 2, stride: 16 };
        // SAFETY: so many elements of so many bytes.
        let taken = unsafe { items::<Later>(list) }.expect("taken");
        assert_eq!(
            taken.iter().map(|later| (later.number, later.more)).collect::<Vec<_>>(),
            [(1, 0), (2, 0)]
        );
        // SAFETY: null may be given.
        assert!(unsafe { lent(std::ptr::null::<latentd_tag>()) }.is_err());
    }
}

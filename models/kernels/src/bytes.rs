//! Numbers as the bytes that they lie in.
#![allow(unsafe_code)]

use crate::Plain;

/// Weights are little-endian in files, and so they are taken here.
const _: () = assert!(cfg!(target_endian = "little"), "numbers in memory are not what files hold");

/// The same numbers as little-endian bytes.
pub(crate) fn bytes_of<T: Plain>(values: &[T]) -> &[u8] {
    // SAFETY: a number has no padding, any byte is a u8, bytes need no alignment, and the slice ends where the values do.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

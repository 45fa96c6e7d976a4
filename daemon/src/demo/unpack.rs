//! How the checkpoint lies in the binary, and the way back. The build script, which packs it, reads this file too.
//!
//! Packed is: all even bytes, then all odd ones, deflated. An f16 is two bytes, and its sign and exponent repeat
//! where its mantissa does not: apart from each other they deflate to less.

use std::io::{self, Read};

use flate2::read::ZlibDecoder;

/// The `size` bytes that were packed; an error, also by its checksum, if `packed` is not what was made of them.
pub(crate) fn unpack(packed: &[u8], size: usize) -> io::Result<Vec<u8>> {
    let mut planes = Vec::new();
    // Megabytes: where memory is short that is this file's failure and not the process's.
    planes.try_reserve_exact(size + 1)?;
    ZlibDecoder::new(packed).take(size as u64 + 1).read_to_end(&mut planes)?;
    if planes.len() != size {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let (even, odd) = planes.split_at(size.div_ceil(2));
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(size)?;
    bytes.resize(size, 0);
    for (pair, (even, odd)) in bytes.chunks_exact_mut(2).zip(even.iter().zip(odd)) {
        pair.copy_from_slice(&[*even, *odd]);
    }
    if let Some(last) = bytes.chunks_exact_mut(2).into_remainder().first_mut() {
        *last = even.last().copied().unwrap_or_default();
    }
    Ok(bytes)
}

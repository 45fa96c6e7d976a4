//! Memory that two processes share, through which numbers go.
//!
//! Neither maps it: what was read is not changed by the other any more.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use super::array::Numbers;
use crate::process::file_size_limit;

/// Its size: address space in a file that has no name, behind which no memory stands until it is written.
const BYTES: u64 = 3 << 30;
/// Bytes of it that are not given back between two runs.
const KEPT: u64 = 8 << 20;
/// Bytes that are copied at once.
const CHUNK: usize = 1 << 20;

/// One end of it.
#[derive(Debug)]
pub(super) struct Segment {
    file: File,
    bytes: u64,
}

impl Segment {
    /// A new one. It stays as large as it is, whatever the other end does.
    pub(super) fn new() -> io::Result<Self> {
        let bytes = file_size_limit().map_or(BYTES, |limit| limit.min(BYTES));
        // SAFETY: the name is a text that ends with NUL.
        let descriptor = unsafe {
            libc::memfd_create(c"latentd-onnx".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING)
        };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it was made just now.
        let file = File::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
        file.set_len(bytes)?;
        let seals = libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
        // SAFETY: only flags of a file that is ours are set.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { file, bytes })
    }

    /// The other end, of a descriptor that was handed over.
    pub(super) fn of(file: File) -> io::Result<Self> {
        let bytes = file.metadata()?.len();
        Ok(Self { file, bytes })
    }

    /// What the other process is handed.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.file.as_fd().try_clone_to_owned()
    }

    /// Bytes that it has room for.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes numbers from a byte on; the byte behind them.
    pub(super) fn write(&self, from: u64, numbers: &Numbers) -> io::Result<u64> {
        match numbers {
            Numbers::F32(numbers) => self.write_each(from, numbers, |number| number.to_le_bytes()),
            Numbers::I32(numbers) => self.write_each(from, numbers, |number| number.to_le_bytes()),
            Numbers::U8(numbers) => self.write_each(from, numbers, |number| [*number]),
            Numbers::I8(numbers) => self.write_each(from, numbers, |number| number.to_le_bytes()),
        }
    }

    fn write_each<T, const N: usize>(
        &self,
        from: u64,
        numbers: &[T],
        bytes: impl Fn(&T) -> [u8; N],
    ) -> io::Result<u64> {
        let (mut place, mut buffer) = (from, Vec::with_capacity(CHUNK.min(numbers.len() * N)));
        for chunk in numbers.chunks(CHUNK / N) {
            buffer.clear();
            buffer.extend(chunk.iter().flat_map(&bytes));
            self.file.write_all_at(&buffer, place)?;
            place += buffer.len() as u64;
        }
        Ok(place)
    }

    /// Reads so many numbers of the kind that `read` makes, from a byte on; and the byte behind them.
    pub(super) fn read<T, const N: usize>(
        &self,
        from: u64,
        count: usize,
        number: impl Fn([u8; N]) -> T,
    ) -> io::Result<(Vec<T>, u64)> {
        let (mut place, mut numbers) = (from, vec![]);
        numbers.try_reserve_exact(count).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let mut buffer = vec![0; CHUNK.min(count.saturating_mul(N))];
        while numbers.len() < count {
            let bytes = ((count - numbers.len()) * N).min(CHUNK / N * N);
            let part = buffer.get_mut(..bytes).ok_or(io::ErrorKind::InvalidInput)?;
            self.file.read_exact_at(part, place)?;
            numbers.extend(part.as_chunks::<N>().0.iter().map(|bytes| number(*bytes)));
            place += bytes as u64;
        }
        Ok((numbers, place))
    }

    /// Gives back the memory behind what was written up to a byte, if it is much.
    pub(super) fn let_go(&self, until: u64) {
        if until > KEPT {
            let flags = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            // SAFETY: it only makes holes in a file that is ours. Where that fails, the memory goes with the file.
            unsafe { libc::fallocate(self.file.as_raw_fd(), flags, 0, self.bytes as libc::off_t) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_out_as_they_went_in() {
        let segment = Segment::new().expect("made");
        let other = Segment::of(File::from(segment.descriptor().expect("copied"))).expect("opened");
        let many: Vec<f32> = (0..600_000).map(|number| number as f32 * 0.5).collect();
        let end = segment.write(3, &Numbers::F32(many.clone())).expect("written");
        assert_eq!(end, 3 + 2_400_000);
        let end = segment.write(end, &Numbers::I8(vec![-1, 2])).expect("written");
        assert_eq!(other.read(3, many.len(), f32::from_le_bytes).expect("read"), (many, 2_400_003));
        assert_eq!(other.read(2_400_003, 2, i8::from_le_bytes).expect("read"), (vec![-1, 2], end));
        segment.let_go(1 << 30);
        assert_eq!(other.read(3, 1, f32::from_le_bytes).expect("read").0, [0.0]);
        // Nothing makes it larger or smaller.
        assert!(other.file.set_len(1).is_err() && other.file.set_len(BYTES + 1).is_err());
        assert!(other.write(segment.bytes() - 3, &Numbers::I32(vec![1])).is_err());
        assert!(other.read(0, usize::MAX, f32::from_le_bytes).is_err());
    }
}

//! Memory that two processes see: tensors' numbers lie there while a plugin in a process of its own works on them.
//!
//! Each child has two, for as long as it lives: what it reads, which is sealed against writing, and what it writes. The addresses are taken once, much
//! more than will be used; memory comes as the file behind them grows.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Addresses of one: more than the largest job needs.
const ADDRESSES: usize = 32 << 30;
/// Where numbers begin: before them lie a few of the host's own words.
const HEAD: usize = 4096;
/// What places begin at multiples of: a cache line.
const ALIGN: usize = 64;
/// By what the file grows at least.
const GROWTH: usize = 4 << 20;

/// Which of the two it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// What the child reads.
    Read,
    /// What the child writes.
    Written,
}

/// Addresses at which a file lies.
struct Mapping {
    base: *mut u8,
    length: usize,
}

// SAFETY: it is memory; who uses which part of it when is for the owner to see to.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(file: BorrowedFd<'_>, is_written: bool) -> io::Result<Self> {
        let access = if is_written { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        let mut length = ADDRESSES;
        loop {
            // SAFETY: nothing lies there yet. What is beyond the file's end is not touched.
            let base = unsafe {
                let flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
                libc::mmap(std::ptr::null_mut(), length, access, flags, file.as_raw_fd(), 0)
            };
            if base != libc::MAP_FAILED {
                return Ok(Self { base: base.cast(), length });
            }
            // Somebody may have limited addresses.
            if length <= 1 << 28 {
                return Err(io::Error::last_os_error());
            }
            length /= 4;
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it was mapped so.
        unsafe { libc::munmap(self.base.cast(), self.length) };
    }
}

/// The host's end of one.
pub(super) struct Segment {
    file: File,
    mapping: Mapping,
    size: usize,
    /// What is in use: where from and until, sorted.
    used: Vec<(usize, usize)>,
}

impl Segment {
    pub(super) fn new(side: Side) -> io::Result<Self> {
        // SAFETY: the name is a text of C.
        let file = unsafe {
            let fd = libc::memfd_create(c"latentd".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            File::from(OwnedFd::from_raw_fd(fd))
        };
        file.set_len(HEAD as u64)?;
        let mapping = Mapping::new(file.as_fd(), true)?;
        // What the child could shrink would be a fault of ours.
        let seals = match side {
            Side::Read => libc::F_SEAL_SHRINK | libc::F_SEAL_FUTURE_WRITE,
            Side::Written => libc::F_SEAL_SHRINK,
        };
        // SAFETY: the descriptor is a memfd's.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals | libc::F_SEAL_SEAL) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { file, mapping, size: HEAD, used: vec![] })
    }

    /// What the child inherits: of what it reads, a descriptor that only reads.
    pub(super) fn inherited(&self, side: Side) -> io::Result<OwnedFd> {
        match side {
            Side::Read => Ok(File::open(format!("/proc/self/fd/{}", self.file.as_raw_fd()))?.into()),
            Side::Written => self.file.as_fd().try_clone_to_owned(),
        }
    }

    /// Takes so many bytes; where they begin. None if there is no room.
    pub(super) fn take(&mut self, bytes: usize) -> io::Result<usize> {
        let bytes = bytes.max(1).next_multiple_of(ALIGN);
        let mut from = HEAD;
        let mut place = self.used.len();
        for (index, (begin, end)) in self.used.iter().enumerate() {
            if begin - from >= bytes {
                place = index;
                break;
            }
            from = *end;
        }
        let until = from.checked_add(bytes).filter(|until| *until <= self.mapping.length);
        let Some(until) = until else { return Err(io::Error::from(io::ErrorKind::OutOfMemory)) };
        if until > self.size {
            let size = until.max(self.size + GROWTH.min(self.size)).next_multiple_of(HEAD);
            self.file.set_len(size as u64)?;
            self.size = size;
        }
        self.used.insert(place, (from, until));
        Ok(from)
    }

    /// Gives back what begins there.
    pub(super) fn give_back(&mut self, from: usize) {
        self.used.retain(|(begin, _)| *begin != from);
    }

    /// Bytes that the file has.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Whether the child made the file larger than it was given.
    pub(super) fn is_grown(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.len() > self.size as u64)
    }

    /// Where a place lies that was taken.
    pub(super) fn at(&self, from: usize) -> *mut u8 {
        // SAFETY: it was taken, and lies within.
        unsafe { self.mapping.base.add(from) }
    }

    /// Tells the child that its job was cancelled, or that the next one is not.
    pub(super) fn cancel(&self, is_cancelled: bool) {
        // SAFETY: the head is there for as long as the mapping, and aligned; both sides use it so.
        let flag = unsafe { std::sync::atomic::AtomicU32::from_ptr(self.mapping.base.cast()) };
        flag.store(u32::from(is_cancelled), std::sync::atomic::Ordering::Relaxed);
    }
}

/// The child's end of one.
pub(super) struct Shared(Mapping);

impl Shared {
    pub(super) fn new(file: BorrowedFd<'_>, side: Side) -> io::Result<Self> {
        Ok(Self(Mapping::new(file, side == Side::Written)?))
    }

    /// Where something lies that the host says is there.
    pub(super) fn at(&self, from: u64) -> *mut u8 {
        self.0.base.wrapping_add(usize::try_from(from).unwrap_or_default())
    }

    /// Whether the job was cancelled.
    pub(super) fn is_cancelled(&self) -> bool {
        // SAFETY: the head is there. One byte of a number that is 0 or 1 tells it, in either order of bytes.
        (0..4).any(|byte| unsafe { self.0.base.add(byte).read_volatile() } != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_do_not_overlap_and_are_used_again() {
        let mut segment = Segment::new(Side::Written).expect("made");
        let (one, two) = (segment.take(100).expect("room"), segment.take(1).expect("room"));
        assert_eq!((one, two), (HEAD, HEAD + 128));
        segment.give_back(one);
        assert_eq!(segment.take(200).expect("room"), HEAD + 192);
        assert_eq!(segment.take(128).expect("room"), HEAD);
        assert!(segment.take(usize::MAX / 2).is_err());
        let large = segment.take(10 << 20).expect("room");
        // SAFETY: it was taken.
        unsafe { segment.at(large).add((10 << 20) - 1).write(7) };
        assert!(segment.size() >= 10 << 20 && !segment.is_grown());
    }

    #[test]
    fn what_a_child_reads_it_cannot_write() {
        use std::io::Write;
        let mut segment = Segment::new(Side::Read).expect("made");
        let place = segment.take(8).expect("room");
        // SAFETY: it was taken.
        unsafe { segment.at(place).write(9) };
        let inherited = segment.inherited(Side::Read).expect("a descriptor");
        assert!(Mapping::new(inherited.as_fd(), true).is_err());
        let shared = Shared::new(inherited.as_fd(), Side::Read).expect("mapped");
        // SAFETY: it is there.
        assert_eq!(unsafe { shared.at(place as u64).read() }, 9);
        assert!(!shared.is_cancelled());
        segment.cancel(true);
        assert!(shared.is_cancelled());
        let mut file = File::from(inherited);
        assert!(file.write_all(b"x").is_err() && file.set_len(0).is_err());
        // Opened anew for writing it cannot be written either.
        let path = format!("/proc/self/fd/{}", segment.file.as_raw_fd());
        let mut again = File::options().write(true).open(path).expect("opened");
        assert!(again.write_all(b"x").is_err());
    }
}

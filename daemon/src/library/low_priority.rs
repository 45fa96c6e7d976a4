//! What keeps background reading out of the way of everything else, through the system's C interface: of the processor, of
//! the disk, and of the memory that holds files for those who use them.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

/// Makes the calling thread run and read only where nothing else would. What the system refuses stays as it is.
#[cfg(target_os = "linux")]
pub(super) fn let_others_go_first() {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    /// Class 3, idle, in the bits above the 13 of the priority in a class.
    const IDLE: libc::c_int = 3 << 13;
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: system calls with numbers and one structure of ours that is only read; 0 is the calling thread in all three.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, 19);
        libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters);
        libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IDLE);
    }
}

/// Nothing that is known.
#[cfg(not(target_os = "linux"))]
pub(super) fn let_others_go_first() {}

/// An open file that is read once, and leaves no more of itself in memory than was there before.
pub(super) struct Passing<'a> {
    file: &'a File,
}

impl<'a> Passing<'a> {
    pub(super) fn new(file: &'a File) -> Self {
        advise(file, 0, 0, RANDOM);
        Self { file }
    }

    /// Reads at `position`; 0 at the file's end.
    pub(super) fn read_at(&self, bytes: &mut [u8], position: u64) -> io::Result<usize> {
        if let Some(length) = read_what_is_there(self.file, bytes, position) {
            return Ok(length);
        }
        let length = self.file.read_at(bytes, position)?;
        advise(self.file, position, length as u64, DONT_NEED);
        Ok(length)
    }
}

/// No more is read than is asked for, so that what is in memory was there before.
#[cfg(target_os = "linux")]
const RANDOM: libc::c_int = libc::POSIX_FADV_RANDOM;
#[cfg(target_os = "linux")]
const DONT_NEED: libc::c_int = libc::POSIX_FADV_DONTNEED;

#[cfg(target_os = "linux")]
fn advise(file: &File, start: u64, length: u64, advice: libc::c_int) {
    // SAFETY: the descriptor is open for as long as the file is borrowed; no byte of it changes.
    unsafe {
        libc::posix_fadvise(file.as_raw_fd(), start.cast_signed(), length.cast_signed(), advice);
    }
}

/// Reads what is in memory already; `None` if that is nothing, or cannot be told.
#[cfg(target_os = "linux")]
fn read_what_is_there(file: &File, bytes: &mut [u8], position: u64) -> Option<usize> {
    let part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: the one part is all of `bytes`, which is ours to be written to.
    let read = unsafe {
        libc::preadv2(file.as_raw_fd(), &raw const part, 1, position.cast_signed(), libc::RWF_NOWAIT)
    };
    usize::try_from(read).ok().filter(|length| *length > 0)
}

#[cfg(not(target_os = "linux"))]
const RANDOM: libc::c_int = 0;
#[cfg(not(target_os = "linux"))]
const DONT_NEED: libc::c_int = 0;
#[cfg(not(target_os = "linux"))]
fn advise(_: &File, _: u64, _: u64, _: libc::c_int) {}
#[cfg(not(target_os = "linux"))]
fn read_what_is_there(_: &File, _: &mut [u8], _: u64) -> Option<usize> {
    None
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn all_of_a_file_is_read_whether_it_is_in_memory_or_not() {
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|index| (index % 251) as u8).collect();
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&bytes).expect("written");
        // On the disk, so that it can be dropped from memory.
        file.sync_all().expect("synced");
        advise(&file, 0, 0, DONT_NEED);
        for _ in 0..2 {
            let (passing, mut read, mut piece) = (Passing::new(&file), Vec::<u8>::new(), vec![0; 1 << 20]);
            loop {
                let length = passing.read_at(&mut piece, read.len() as u64).expect("read");
                if length == 0 {
                    break;
                }
                read.extend(&piece[..length]);
            }
            assert!(read == bytes);
        }
    }
}

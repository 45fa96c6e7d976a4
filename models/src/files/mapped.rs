//! A file mapped for reading. Should another program shorten it meanwhile, that is an error, not a crash.
//!
//! Reading a mapped page that the file no longer has raises SIGBUS. The handler here puts zeros in the place of
//! the lost pages and makes a note; whoever reads asks [`MappedFile::check`] afterwards. Faults elsewhere go to
//! the handler that stood before.
#![allow(unsafe_code)]

use std::fs::File;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use memmap2::{Mmap, UncheckedAdvice};

use crate::{Error, Result};

/// Files that can be mapped at once, of which a folder has several; one more waits for none and is refused.
const SLOTS: usize = 256;

/// One mapped range, as the signal handler sees it: atomics only.
struct Slot {
    taken: AtomicBool,
    /// Odd while `start` and `length` are those of a map; counted up each time that begins or ends.
    generation: AtomicUsize,
    start: AtomicUsize,
    length: AtomicUsize,
    faulted: AtomicBool,
}

static GUARDED: [Slot; SLOTS] = [const {
    Slot {
        taken: AtomicBool::new(false),
        generation: AtomicUsize::new(0),
        start: AtomicUsize::new(0),
        length: AtomicUsize::new(0),
        faulted: AtomicBool::new(false),
    }
}; SLOTS];

impl Slot {
    /// The mapped range, if there is one. A slot that changes hands during the look has none: the map in which
    /// a thread faults is one that it holds open. Without that, one file's address and another's length could be
    /// taken for a range, and what lies in it be overwritten.
    fn range(&self) -> Option<Range<usize>> {
        let generation = self.generation.load(Ordering::Acquire);
        let (start, length) = (self.start.load(Ordering::Acquire), self.length.load(Ordering::Acquire));
        let settled = !generation.is_multiple_of(2) && self.generation.load(Ordering::Acquire) == generation;
        settled.then(|| start..start + length)
    }
}

static PAGE: AtomicUsize = AtomicUsize::new(4096);
static PREVIOUS: AtomicPtr<libc::sigaction> = AtomicPtr::new(std::ptr::null_mut());

/// A regular file, mapped and guarded.
pub(super) struct MappedFile {
    path: PathBuf,
    slot: &'static Slot,
    map: Mmap,
    file: File,
}

impl MappedFile {
    /// Maps a regular, non-empty file that is open; errors call it `path`.
    pub(super) fn map(file: &File, path: &Path) -> Result<Self> {
        let failed = |error: std::io::Error| Error::unread(path, error.to_string());
        let info = file.metadata().map_err(failed)?;
        if !info.is_file() {
            return Err(Error::file(path, "is not a regular file"));
        }
        if info.len() == 0 {
            return Err(Error::file(path, "is empty; copy or download it again"));
        }
        // SAFETY: the map is only read, and lost pages are handled as the module says.
        let map = unsafe { Mmap::map(file) }.map_err(|error| match error.raw_os_error() {
            Some(libc::ENOMEM) => Error::OutOfMemory { bytes: info.len() },
            _ => failed(error),
        })?;
        let file = file.try_clone().map_err(failed)?;
        install_handler();
        let free = |slot: &&Slot| {
            slot.taken.compare_exchange(false, true, Ordering::AcqRel, Ordering::Acquire).is_ok()
        };
        let slot = GUARDED
            .iter()
            .find(free)
            .ok_or_else(|| Error::unread(path, "too many files are being read; try again"))?;
        slot.faulted.store(false, Ordering::Release);
        slot.start.store(map.as_ptr() as usize, Ordering::Release);
        slot.length.store(map.len(), Ordering::Release);
        slot.generation.fetch_add(1, Ordering::AcqRel);
        Ok(Self { path: path.to_owned(), slot, map, file })
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Its bytes. Zeros where the file was cut off since; [`Self::check`] tells.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Reads bytes from `start` on, past the map.
    pub(super) fn read_at(&self, start: usize, bytes: &mut [u8]) -> Result<()> {
        use std::os::unix::fs::FileExt;
        self.file.read_exact_at(bytes, start as u64).map_err(|_| {
            self.slot.faulted.store(true, Ordering::Release);
            self.lost()
        })
    }

    /// Lets go of the pages that lie wholly within these bytes: they count as this process's memory for as long as it
    /// maps them. Read again, they come from the file again.
    pub(super) fn let_go(&self, range: Range<usize>) {
        let page = PAGE.load(Ordering::Acquire);
        let (start, end) = (range.start.next_multiple_of(page), range.end.min(self.map.len()) / page * page);
        if start < end {
            // SAFETY: the pages are the file's, which nobody writes through this map, so they come back as they were;
            // or zeros of the handler's, which do as well. Where the system refuses nothing is lost.
            unsafe {
                self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, start, end - start).ok();
            }
        }
    }

    /// An error if anything read so far was no longer there.
    pub(super) fn check(&self) -> Result<()> {
        if self.slot.faulted.load(Ordering::Acquire) { Err(self.lost()) } else { Ok(()) }
    }

    fn lost(&self) -> Error {
        Error::unread(
            &self.path,
            "was cut off by another program while it was read, or its disk failed; try again",
        )
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        // Before the slot is free for others and before the map, a field, is dropped.
        self.slot.generation.fetch_add(1, Ordering::AcqRel);
        self.slot.taken.store(false, Ordering::Release);
    }
}

/// Opens a file to be read; a named pipe too, at once. A file that another program holds a lease on, as file servers do, is
/// waited for.
pub fn open_without_waiting(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    match File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => File::open(path),
        opened => opened,
    }
}

fn install_handler() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: plain system calls over zeroed structures of their own; the previous action is leaked on
        // purpose, so that the handler can read it at any time.
        unsafe {
            PAGE.store(libc::sysconf(libc::_SC_PAGESIZE).max(1) as usize, Ordering::Release);
            let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
            action.sa_sigaction = on_bus_error as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&raw mut action.sa_mask);
            let previous: *mut libc::sigaction = Box::into_raw(Box::new(MaybeUninit::zeroed().assume_init()));
            libc::sigaction(libc::SIGBUS, &raw const action, previous);
            PREVIOUS.store(previous, Ordering::Release);
        }
    });
}

/// Only atomics and system calls: all that a signal handler may use.
extern "C" fn on_bus_error(_signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel hands a valid `info` to a handler installed with SA_SIGINFO.
    let address = unsafe { (*info).si_addr() } as usize;
    for slot in &GUARDED {
        let Some(range) = slot.range().filter(|range| range.contains(&address)) else {
            continue;
        };
        let page = PAGE.load(Ordering::Acquire);
        let from = address / page * page;
        slot.faulted.store(true, Ordering::Release);
        // SAFETY: replaces pages of a map that this module owns and that have no file behind them any more.
        let zeros = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
            libc::mmap(from as *mut libc::c_void, range.end - from, libc::PROT_READ, flags, -1, 0)
        };
        if zeros != libc::MAP_FAILED {
            return;
        }
    }
    // Not ours: the handler before ours gets the fault when the instruction is tried again.
    let previous = PREVIOUS.load(Ordering::Acquire);
    // SAFETY: null, or leaked by `install_handler`; null restores nothing and the fault repeats.
    unsafe {
        if previous.is_null() {
            libc::signal(libc::SIGBUS, libc::SIG_DFL);
        } else {
            libc::sigaction(libc::SIGBUS, previous, std::ptr::null_mut());
        }
    }
}

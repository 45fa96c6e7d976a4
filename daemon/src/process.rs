//! What only the operating system's C interface does to a process.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use interprocess::local_socket::tokio::Stream;

/// Keeps the allocator from setting 64 MiB of address space aside for each thread: under `ulimit -v` that is what would
/// be used up first.
pub(crate) fn share_arenas() {
    // SAFETY: it sets a number of the allocator's, which it may at any time.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// Gives memory that was freed back to the system, which the allocator keeps for later.
pub(crate) fn give_memory_back() {
    // SAFETY: it changes nothing that is in use.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// A file over the size limit becomes an error of the write, as a full disk is, instead of this process's end.
pub(crate) fn ignore_file_size_signal() {
    // SAFETY: SIG_IGN is a valid disposition for SIGXFSZ, and no handler of ours is replaced.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// How many bytes a file may have that this process writes (`ulimit -f`), if there is a limit.
pub(crate) fn file_size_limit() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: it only writes into a struct that is ours.
    let asked = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) };
    (asked == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

/// Whether nobody is at the other end of a connection any more: one that only sends nothing more is still there.
pub(crate) fn has_hung_up(stream: &Stream) -> bool {
    let Stream::UdSocket(stream) = stream;
    let mut polled = libc::pollfd { fd: stream.as_fd().as_raw_fd(), events: 0, revents: 0 };
    // SAFETY: one entry, of a descriptor that is open as long as the stream is borrowed; it does not wait.
    unsafe { libc::poll(&raw mut polled, 1, 0) };
    polled.revents & (libc::POLLHUP | libc::POLLERR) != 0
}

/// Whether stderr goes to this very file.
pub(crate) fn is_stderr(file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    let place = |file: &File| file.metadata().ok().map(|found| (found.dev(), found.ino()));
    let stderr = io::stderr().as_fd().try_clone_to_owned().map(File::from);
    stderr.is_ok_and(|stderr| place(&stderr).is_some() && place(&stderr) == place(file))
}

/// From now on stderr goes to this file.
pub(crate) fn point_stderr_at(file: &File) -> io::Result<()> {
    // SAFETY: both descriptors are open, and stderr is a number that nobody owns.
    match unsafe { libc::dup2(file.as_raw_fd(), libc::STDERR_FILENO) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The command's process leaves our terminal, so that Ctrl-C here does not end it, and has nothing open but its standard
/// streams: what else whoever started us left open would stay so for as long as it lives.
pub(crate) fn detach(command: &mut Command) {
    // SAFETY: between fork and exec only async-signal-safe functions may run; setsid, close_range and fcntl are, and
    // reading errno too. They touch no memory, and closing happens at exec, when nobody uses a descriptor any more.
    unsafe {
        command.pre_exec(|| {
            close_at_exec();
            if libc::setsid() < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
        });
    }
}

/// Marks all descriptors but the standard streams. Not closed at once: through one of them the parent is told if exec
/// fails.
///
/// # Safety
///
/// Only where exec follows.
unsafe fn close_at_exec() {
    /// More than any program has open; only for systems from before `close_range`.
    const MOST: libc::c_int = 65_536;
    let (first, last) = (libc::STDERR_FILENO + 1, libc::c_uint::MAX);
    // SAFETY: as above.
    let marked = unsafe { libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_CLOEXEC) };
    if marked != 0 {
        for descriptor in first..MOST {
            // SAFETY: as above; one that is not open is an error that changes nothing.
            unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
}

/// Whether whoever started this process wants it to live on when the terminal goes, as `nohup` does.
pub(crate) fn ignores_hangup() -> bool {
    // SAFETY: all-zero bytes are a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: with no new action given it only writes the old one, into a struct that is ours.
    let asked = unsafe { libc::sigaction(libc::SIGHUP, std::ptr::null(), &raw mut action) };
    asked == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// The terminal this process was started in, if any. It is gone when `/dev/tty` no longer opens: the system takes it from
/// the processes of a session before it tells them of a hangup.
pub(crate) struct Terminal {
    was_there: bool,
}

impl Terminal {
    pub(crate) fn find() -> Self {
        Self { was_there: Self::opens() }
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.was_there && !Self::opens()
    }

    fn opens() -> bool {
        File::open("/dev/tty").is_ok()
    }
}

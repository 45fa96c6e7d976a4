//! What only the operating system's C interface does to a process.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use interprocess::local_socket::tokio::Stream;

/// A file over the size limit becomes an error of the write, as a full disk is, instead of this process's end.
pub(crate) fn ignore_file_size_signal() {
    // SAFETY: SIG_IGN is a valid disposition for SIGXFSZ, and no handler of ours is replaced.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// Whether nobody is at the other end of a connection any more: one that only sends nothing more is still there.
pub(crate) fn has_hung_up(stream: &Stream) -> bool {
    let Stream::UdSocket(stream) = stream;
    let mut polled = libc::pollfd { fd: stream.as_fd().as_raw_fd(), events: 0, revents: 0 };
    // SAFETY: one entry, of a descriptor that is open as long as the stream is borrowed; it does not wait.
    unsafe { libc::poll(&raw mut polled, 1, 0) };
    polled.revents & (libc::POLLHUP | libc::POLLERR) != 0
}

/// The command's process leaves our terminal, so that Ctrl-C here does not end it.
pub(crate) fn detach(command: &mut Command) {
    // SAFETY: between fork and exec only async-signal-safe functions may run; setsid is one, and reading errno too.
    unsafe {
        command.pre_exec(|| if libc::setsid() < 0 { Err(io::Error::last_os_error()) } else { Ok(()) });
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

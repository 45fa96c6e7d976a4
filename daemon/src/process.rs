//! What only the operating system's C interface does to a process.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// A file over the size limit becomes an error of the write, as a full disk is, instead of this process's end.
pub(crate) fn ignore_file_size_signal() {
    // SAFETY: SIG_IGN is a valid disposition for SIGXFSZ, and no handler of ours is replaced.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// The command's process leaves our terminal, so that Ctrl-C here does not end it.
pub(crate) fn detach(command: &mut Command) {
    // SAFETY: between fork and exec only async-signal-safe functions may run; setsid is one, and reading errno too.
    unsafe {
        command.pre_exec(|| if libc::setsid() < 0 { Err(io::Error::last_os_error()) } else { Ok(()) });
    }
}

//! Files without a name: what is written into one is gone with the process that is killed meanwhile.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A new file on the disk of `folder`; `None` where that cannot be had. Its rights are those that any new file gets.
pub(crate) fn create_in(folder: &Path) -> io::Result<Option<File>> {
    match File::options().read(true).write(true).custom_flags(libc::O_TMPFILE).open(folder) {
        Ok(file) => Ok(Some(file)),
        // What file systems and kernels answer that do not know of it.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL | libc::ENOSYS)
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Gives the file a name, which nothing may have yet.
pub(crate) fn name(file: &File, path: &Path) -> io::Result<()> {
    let open = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let path = CString::new(path.as_os_str().as_bytes())?;
    let here = libc::AT_FDCWD;
    // SAFETY: both are texts that end with NUL and outlive the call, which keeps neither.
    match unsafe { libc::linkat(here, open.as_ptr(), here, path.as_ptr(), libc::AT_SYMLINK_FOLLOW) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

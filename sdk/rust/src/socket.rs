//! Where the daemon listens, and whether it is a daemon of this user that does.

use std::path::{Path, PathBuf};

/// The environment variable that names the socket.
pub const SOCKET_ENV: &str = "LATENTD_SOCKET";

/// The socket's path: `$LATENTD_SOCKET` (where `~` in front is the home folder), else
/// `$XDG_RUNTIME_DIR/latentd/latentd.sock`, else `latentd-UID/latentd.sock` in the temporary folder. A relative
/// `XDG_RUNTIME_DIR` is as if it were not set, as its specification says.
pub fn default_path() -> PathBuf {
    if let Some(path) = env_path(SOCKET_ENV) {
        return match (path.strip_prefix("~"), std::env::home_dir()) {
            (Ok(rest), Some(home)) => home.join(rest),
            _ => path,
        };
    }
    let runtime = env_path("XDG_RUNTIME_DIR").filter(|path| path.is_absolute());
    let folder = runtime.map_or_else(temporary_place, |runtime| runtime.join("latentd"));
    folder.join("latentd.sock")
}

/// The id of the user this process acts as: whose socket it may speak to.
#[cfg(unix)]
pub fn effective_user() -> u32 {
    // SAFETY: geteuid takes nothing, cannot fail, and touches no memory of ours.
    unsafe { libc::geteuid() }
}

/// Whether only this user can put a socket into a folder; the error says why not.
#[cfg(unix)]
pub fn check_folder(folder: &Path) -> Result<(), String> {
    use std::os::unix::fs::MetadataExt;
    const ROOT: u32 = 0;
    // Who owns a link decides where it leads.
    let (Ok(link), Ok(found)) = (folder.symlink_metadata(), folder.metadata()) else {
        return Err("it cannot be looked at".into());
    };
    if link.is_symlink() && ![ROOT, effective_user()].contains(&link.uid()) {
        return Err(format!("it is a link of user {}", link.uid()));
    }
    if !found.is_dir() {
        return Err("it is no folder".into());
    }
    if found.uid() != effective_user() {
        return Err(format!("it belongs to user {}", found.uid()));
    }
    if found.mode() & 0o022 != 0 {
        return Err(format!("others may write to it (mode {:o})", found.mode() & 0o7777));
    }
    Ok(())
}

/// Looks whether somebody else may have made the place of this socket before the daemon did, which is so in the temporary
/// folder alone; the error says why it is not safe.
pub(crate) fn check_place(path: &Path) -> Result<(), String> {
    #[cfg(unix)]
    if let Some(folder) = path.parent().filter(|folder| **folder == temporary_place())
        && folder.symlink_metadata().is_ok()
    {
        return check_folder(folder).map_err(|reason| format!("{} is not safe: {reason}", folder.display()));
    }
    Ok(())
}

/// Where the socket's folder is for those without a runtime folder.
fn temporary_place() -> PathBuf {
    let temporary = Some(std::env::temp_dir()).filter(|path| path.is_absolute());
    let temporary = temporary.unwrap_or_else(|| "/tmp".into());
    temporary.join(format!("latentd-{}", effective_user()))
}

fn env_path(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

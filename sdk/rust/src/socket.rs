//! Where the daemon listens.

use std::path::PathBuf;

/// The environment variable that names the socket.
pub const SOCKET_ENV: &str = "LATENTD_SOCKET";

/// The socket's path: `$LATENTD_SOCKET`, else `$XDG_RUNTIME_DIR/latentd/latentd.sock`, else
/// `latentd-UID/latentd.sock` in the temporary folder.
pub fn default_path() -> PathBuf {
    if let Some(path) = env_path(SOCKET_ENV) {
        return path;
    }
    let folder = match env_path("XDG_RUNTIME_DIR") {
        Some(runtime) => runtime.join("latentd"),
        None => std::env::temp_dir().join(format!("latentd-{}", effective_user())),
    };
    folder.join("latentd.sock")
}

/// The id of the user this process acts as: whose socket it may speak to.
#[cfg(unix)]
pub fn effective_user() -> u32 {
    // SAFETY: geteuid takes nothing, cannot fail, and touches no memory of ours.
    unsafe { libc::geteuid() }
}

fn env_path(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

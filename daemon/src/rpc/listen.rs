//! The socket: one daemon per path, and nobody but its user gets in.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use interprocess::local_socket::tokio::Listener;
use interprocess::local_socket::{GenericFilePath, ListenerOptions, ToFsName};
use interprocess::os::unix::local_socket::ListenerOptionsExt;
use latentd_client::socket::check_folder;

use crate::lock_file;

/// Bytes of a path that every system takes in a socket's address.
const PATH_BYTES: usize = 100;

/// A socket that is ours. The lock lives as long as this.
pub(crate) struct Listening {
    pub listener: Listener,
    pub path: PathBuf,
    _lock: File,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    #[error("the socket path {} has {length} bytes, at most {PATH_BYTES} work; give a shorter --socket", path.display())]
    TooLong { path: PathBuf, length: usize },
    #[error("a daemon is already listening on {}; use it, or give another --socket", path.display())]
    Running { path: PathBuf },
    #[error("{} is not safe for a socket: {reason}; give a --socket in a folder of your own", path.display())]
    Unsafe { path: PathBuf, reason: String },
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
}

/// Listens on `path`. Must be called inside a tokio runtime.
pub(crate) fn listen(path: &Path) -> Result<Listening, ListenError> {
    let path = std::path::absolute(path).map_err(at(path))?;
    let length = path.as_os_str().as_bytes().len();
    if length > PATH_BYTES {
        return Err(ListenError::TooLong { path, length });
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    prepare_folder(folder)?;
    let lock = lock(&path)?;
    remove_stale(&path)?;
    let bind = || {
        // Never `try_overwrite`: it would displace a listener that is alive.
        let name = path.as_os_str().to_fs_name::<GenericFilePath>()?;
        let listener = ListenerOptions::new().name(name).mode(0o600).create_tokio()?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    };
    let listener = bind().map_err(at(&path))?;
    Ok(Listening { listener, path, _lock: lock })
}

/// The folder keeps others out, also in the moment before the socket has its rights.
fn prepare_folder(folder: &Path) -> Result<(), ListenError> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(at(folder))?;
    check_folder(folder).map_err(|reason| ListenError::Unsafe { path: folder.to_owned(), reason })
}

/// Locks the file beside the socket.
fn lock(path: &Path) -> Result<File, ListenError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock_path = PathBuf::from(name);
    let locked = lock_file::lock(&lock_path).map_err(at(&lock_path))?;
    locked.ok_or_else(|| ListenError::Running { path: path.to_owned() })
}

/// Removes a socket that nobody listens on any more.
fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(ListenError::Io { path: path.to_owned(), error }),
    };
    if !found.file_type().is_socket() {
        let reason = "something that is no socket stands there".into();
        return Err(ListenError::Unsafe { path: path.to_owned(), reason });
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(ListenError::Running { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(at(path))
        }
        Err(error) => Err(ListenError::Io { path: path.to_owned(), error }),
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> ListenError {
    let path = path.to_owned();
    move |error| ListenError::Io { path, error }
}

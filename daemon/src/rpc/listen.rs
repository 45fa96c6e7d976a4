//! The socket: one daemon per path, and nobody but its user gets in.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use interprocess::local_socket::tokio::Listener;
use interprocess::local_socket::{GenericFilePath, ListenerOptions, ToFsName};
use interprocess::os::unix::local_socket::ListenerOptionsExt;
use latentd_client::socket::check_folder;

use crate::lock_file::{self, Holder, LockFile, Locked};

/// Bytes of a path that every system takes in a socket's address.
const PATH_BYTES: usize = 100;
/// How long a daemon that no longer listens may take to end.
const ENDING: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A socket that is ours. The lock lives as long as this.
pub(crate) struct Listening {
    pub listener: Listener,
    pub socket: Arc<SocketFile>,
    lock: LockFile,
}

/// Where clients find a socket. It goes with the last who holds this, and only if it is still ours.
pub(crate) struct SocketFile {
    pub path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

/// Whether clients still find a socket.
pub(crate) enum Standing {
    /// They do.
    Ours,
    /// Nothing stands there: a cleaner removed it, or the folder was made anew.
    Nothing,
    /// Something else stands there, which is not ours to remove.
    Other,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    #[error("the socket path {} has {length} bytes, at most {PATH_BYTES} work; give a shorter --socket", path.display())]
    TooLong { path: PathBuf, length: usize },
    #[error("a daemon ({holder}) is already listening on {}; use it, or give another --socket", path.display())]
    Running { path: PathBuf, holder: Holder },
    #[error("{} is not safe for a socket: {reason}; give a --socket in a folder of your own", path.display())]
    Unsafe { path: PathBuf, reason: String },
    #[error("something else stands at {}", path.display())]
    Displaced { path: PathBuf },
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
    bind(path, lock)
}

impl Listening {
    /// Listens no more. The path stays locked until the process ends, so that who comes next finds everything that this
    /// daemon had free.
    pub(crate) fn close(self) {
        let Self { listener, socket, lock } = self;
        socket.remove();
        drop(listener);
        std::mem::forget(lock);
    }

    /// Listens at the same path again, where nothing stands any more.
    pub(crate) fn again(self) -> Result<Self, ListenError> {
        let Self { listener, socket, lock } = self;
        let path = socket.path.clone();
        drop((listener, socket));
        prepare_folder(path.parent().unwrap_or(Path::new("/")))?;
        let lock = if lock.is_in_place() { lock } else { self::lock(&path)? };
        bind(path, lock)
    }
}

impl SocketFile {
    /// What stands where it was bound.
    pub(crate) fn find(&self) -> Standing {
        match fs::symlink_metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == self.identity => Standing::Ours,
            Ok(_) => Standing::Other,
            Err(_) => Standing::Nothing,
        }
    }

    /// Nobody is to come here any more.
    pub(crate) fn remove(&self) {
        if matches!(self.find(), Standing::Ours) {
            fs::remove_file(&self.path).ok();
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

fn bind(path: PathBuf, lock: LockFile) -> Result<Listening, ListenError> {
    remove_stale(&path)?;
    let bind = || {
        // Never `try_overwrite`: it would displace a listener that is alive. Removed by us, not by the listener, which
        // would not look whose it is.
        let name = path.as_os_str().to_fs_name::<GenericFilePath>()?;
        let options = ListenerOptions::new().name(name).mode(0o600).reclaim_name(false);
        let listener = options.create_tokio()?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        let metadata = fs::symlink_metadata(&path)?;
        Ok((listener, (metadata.dev(), metadata.ino())))
    };
    let (listener, identity) = bind().map_err(at(&path))?;
    Ok(Listening { listener, socket: Arc::new(SocketFile { path, identity }), lock })
}

/// The folder keeps others out, also in the moment before the socket has its rights.
fn prepare_folder(folder: &Path) -> Result<(), ListenError> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(at(folder))?;
    check_folder(folder).map_err(|reason| ListenError::Unsafe { path: folder.to_owned(), reason })
}

/// Locks the file beside the socket.
fn lock(path: &Path) -> Result<LockFile, ListenError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock_path = PathBuf::from(name);
    let deadline = Instant::now() + ENDING;
    loop {
        let holder = match lock_file::lock(&lock_path).map_err(at(&lock_path))? {
            Locked::Own(lock) => return Ok(lock),
            Locked::Held(holder) => holder,
        };
        // It may have stopped listening and be about to end, or not listen yet.
        if UnixStream::connect(path).is_ok() || Instant::now() >= deadline {
            return Err(ListenError::Running { path: path.to_owned(), holder });
        }
        std::thread::sleep(LOOK_EVERY);
    }
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
        // Somebody listens without our lock.
        Ok(_) => Err(ListenError::Running { path: path.to_owned(), holder: Holder::unknown() }),
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

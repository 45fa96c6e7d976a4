//! A file as it was when a job was submitted: held open, so that one that is replaced or removed meanwhile is drawn with
//! all the same, and looked at again, so that one that was written to is not.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use latentd_models::model::Checkpoint;
use sha2::{Digest, Sha256};

use super::hash::Sha256Task;
use super::item::{Item, Source, Stamp};
use crate::demo::DemoModel;
use crate::error::{Class, Error, Result};

/// Bytes of a header that are believed, as the format has it.
const LARGEST_HEADER: u64 = 100_000_000;

/// What tells the bytes of one checkpoint from those of another without reading them all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    source: Source,
    /// Device and inode; zeros for what is built in.
    inode: (u64, u64),
    /// SHA-256 of the file's header; zeros for what is built in.
    header: [u8; 32],
}

/// A checkpoint that jobs will be drawn with. Jobs of one file share one.
pub(crate) struct Pinned {
    item: Item,
    identity: Identity,
    /// `None`: built in.
    file: Option<Arc<File>>,
    /// What is built in, unpacked once it is needed.
    unpacked: OnceLock<Arc<Checkpoint>>,
    sha256: Sha256Task,
    /// How many files were opened before.
    opened: u64,
}

/// Files that were opened so far.
static OPENED: AtomicU64 = AtomicU64::new(0);

/// Why a file could not be pinned.
pub(super) enum PinError {
    /// It is another one than the library says.
    Moved,
    Unusable(Error),
}

impl Pinned {
    /// What is in this program.
    pub(super) fn built_in(item: &Item, demo: &DemoModel) -> Self {
        Self {
            item: item.clone(),
            identity: Identity { source: item.source.clone(), inode: (0, 0), header: [0; 32] },
            file: None,
            unpacked: OnceLock::new(),
            sha256: Sha256Task::done(demo.sha256.to_owned()),
            opened: 0,
        }
    }

    /// Opens the file and looks at its header. `hash` begins, or knows, its SHA-256.
    pub(super) fn open(
        item: &Item,
        path: &Path,
        stamp: Stamp,
        hash: impl FnOnce(&Arc<File>) -> Sha256Task,
    ) -> Result<Self, PinError> {
        let unusable = |error: io::Error| {
            let text = format!("{} '{}': {}: {error}", item.kind, item.name, path.display());
            PinError::Unusable(Error::new(Class::Model, text))
        };
        // Not blocking: a named pipe that stands there now is not waited for.
        let file = match File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(PinError::Moved),
            opened => opened.map_err(unusable)?,
        };
        let metadata = file.metadata().map_err(unusable)?;
        if !metadata.is_file() || Stamp::of(&metadata) != stamp {
            return Err(PinError::Moved);
        }
        let header = read_header(&file).map_err(unusable)?;
        let file = Arc::new(file);
        Ok(Self {
            item: item.clone(),
            identity: Identity {
                source: item.source.clone(),
                inode: inode(&metadata),
                header: Sha256::digest(&header).into(),
            },
            unpacked: OnceLock::new(),
            sha256: hash(&file),
            file: Some(file),
            opened: OPENED.fetch_add(1, Ordering::Relaxed),
        })
    }

    /// Whether pinning `item` now would give the same.
    pub(super) fn is_current(&self, item: &Item) -> bool {
        self.item == *item && self.path().is_none_or(|path| self.is_at(path))
    }

    /// What the library says of it.
    pub(crate) fn item(&self) -> &Item {
        &self.item
    }

    /// Grows with each file that is opened: of two that stood at one path the later one has more.
    pub(crate) fn opened(&self) -> u64 {
        self.opened
    }

    /// Tells its bytes from those of any other.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Its header, read and checked, and its networks on demand; of the bytes that were pinned, whatever stands at the
    /// path by now.
    pub(crate) fn checkpoint(&self) -> Result<Arc<Checkpoint>> {
        let (Some(file), Source::File { path, .. }) = (&self.file, &self.item.source) else {
            if let Some(unpacked) = self.unpacked.get() {
                return Ok(Arc::clone(unpacked));
            }
            let unpacked = Arc::new(DemoModel::checkpoint()?);
            return Ok(Arc::clone(self.unpacked.get_or_init(|| unpacked)));
        };
        let opened = Checkpoint::open_file(file, path);
        // Asked first: what was written to meanwhile may look like anything.
        self.check()?;
        Ok(Arc::new(opened?))
    }

    /// An error if its bytes are no longer those that were pinned: somebody wrote to the file itself.
    pub(crate) fn check(&self) -> Result<()> {
        let (Some(file), Source::File { path, stamp, .. }) = (&self.file, &self.item.source) else {
            return Ok(());
        };
        let same = || -> io::Result<bool> {
            let header = |file| read_header(file).map(|header| <[u8; 32]>::from(Sha256::digest(header)));
            Ok(Stamp::of(&file.metadata()?) == *stamp && header(file)? == self.identity.header)
        };
        if same().unwrap_or(false) {
            return Ok(());
        }
        let text = format!(
            "{} '{}': {} was written to after the request was made; submit it again once the file is whole",
            self.item.kind,
            self.item.name,
            path.display()
        );
        Err(Error::new(Class::Model, text))
    }

    /// Its SHA-256 in hex. Waits for it until `cancelled`.
    pub(crate) fn sha256(&self, cancelled: &dyn Fn() -> bool) -> Result<String> {
        match self.sha256.wait(cancelled) {
            Some(Ok(digest)) => {
                self.check()?;
                Ok(digest)
            }
            Some(Err(error)) => {
                let text = format!("{} '{}' cannot be hashed: {error}", self.item.kind, self.item.name);
                Err(Error::new(Class::Model, text))
            }
            None => Err(Error::new(Class::Cancelled, "cancelled while its model was hashed")),
        }
    }

    fn path(&self) -> Option<&Path> {
        self.item.path()
    }

    /// Whether what stands at `path` is the very file.
    fn is_at(&self, path: &Path) -> bool {
        let Ok(found) = std::fs::metadata(path) else {
            return false;
        };
        let is_pinned = |stamp: &Stamp| inode(&found) == self.identity.inode && Stamp::of(&found) == *stamp;
        matches!(&self.item.source, Source::File { stamp, .. } if is_pinned(stamp))
    }
}

fn inode(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// The length and the JSON at a safetensors file's beginning.
fn read_header(file: &File) -> io::Result<Vec<u8>> {
    let mut length = [0; 8];
    file.read_exact_at(&mut length, 0)?;
    let bytes = u64::from_le_bytes(length);
    if bytes > LARGEST_HEADER || bytes > file.metadata()?.len() {
        return Err(io::Error::other("its header is longer than it may be"));
    }
    let mut header = vec![0; bytes as usize + 8];
    file.read_exact_at(&mut header, 0)?;
    Ok(header)
}

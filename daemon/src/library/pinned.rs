//! A file as it was when a job was submitted: held open, so that one that is replaced or removed meanwhile is drawn with
//! all the same, and looked at again, so that one that was written to is not.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use latentd_client::protocol::LibraryKind;
use latentd_models::adapters::{Embedding, LARGEST_PICTURE, embedding_of_picture};
use latentd_models::files::{self, LARGEST_HEADER, Tensors, open_without_waiting};
use latentd_models::model::Checkpoint;
use latentd_models::networks::known::KnownNetwork;
use sha2::{Digest, Sha256};

use super::hash::{Hashes, Sha256Task};
use super::item::{Item, Source};
use super::model_folder;
use super::stamp::{Seen, Stamp};
use crate::demo::DemoModel;
use crate::error::{Class, Error, Result};
use crate::onnx::{self, Graph, GraphFile, Header};

/// What tells the bytes of one checkpoint from those of another without reading them all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    source: Source,
    /// SHA-256 of what says what is in the file; zeros for what is built in.
    header: [u8; 32],
}

impl Identity {
    /// The same for the same, and for no others.
    pub(crate) fn digest(&self) -> [u8; 32] {
        Sha256::digest(format!("{self:?}")).into()
    }
}

/// A checkpoint that jobs will be drawn with. Jobs of one file share one.
pub(crate) struct Pinned {
    item: Item,
    identity: Identity,
    /// `None`: built in.
    file: Option<Arc<File>>,
    /// What is built in, unpacked once it is needed.
    unpacked: OnceLock<Arc<Checkpoint>>,
    hashes: Sha256Task,
    embedding: OnceLock<Arc<Embedding>>,
    /// Whether the numbers of its network were looked at.
    checked: OnceLock<()>,
    /// How many files were opened before.
    opened: u64,
}

/// Bytes at either end of a file that is not safetensors that are taken for its header.
const HEADER_ENDS: u64 = 1 << 18;

/// Bytes of an ONNX file: more than 31 bits can count is in several.
const LARGEST_GRAPH: u64 = i32::MAX as u64;

/// Formats of pictures that carry embeddings.
const PICTURES: [&str; 2] = ["png", "webp"];

/// Files that were opened so far.
static OPENED: AtomicU64 = AtomicU64::new(0);

/// Why a file could not be pinned.
pub(super) enum PinError {
    /// It is another one than the library says.
    Moved,
    Unusable(Error),
}

/// Opens what stands at an entry's path now, and says what it is.
pub(super) fn open(item: &Item, path: &Path) -> Result<(File, Seen), PinError> {
    // Not blocking: a named pipe that stands there now is not waited for.
    let file = match open_without_waiting(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(PinError::Moved),
        opened => opened.map_err(|error| unusable(item, &error))?,
    };
    let metadata = file.metadata().map_err(|error| unusable(item, &error))?;
    if !metadata.is_file() && !metadata.is_dir() {
        return Err(PinError::Moved);
    }
    Ok((file, Seen::of(&metadata, path)))
}

fn unusable(item: &Item, error: &io::Error) -> PinError {
    let path = item.path().unwrap_or(Path::new("")).display();
    let text = format!("{} '{}': {path}: {error}", item.kind, item.name);
    PinError::Unusable(Error::new(Class::Model, text))
}

impl Pinned {
    /// What is in this program.
    pub(super) fn built_in(item: &Item, demo: &DemoModel) -> Self {
        Self {
            item: item.clone(),
            identity: Identity { source: item.source.clone(), header: [0; 32] },
            file: None,
            unpacked: OnceLock::new(),
            hashes: Sha256Task::done(Hashes { sha256: demo.sha256.to_owned(), addon: None }),
            embedding: OnceLock::new(),
            checked: OnceLock::new(),
            opened: 0,
        }
    }

    /// Looks at the header of the file, which is open and is `item`'s. `hash` begins, or knows, its SHA-256.
    pub(super) fn new(
        item: Item,
        file: File,
        hash: impl FnOnce(&Arc<File>) -> Sha256Task,
    ) -> Result<Self, PinError> {
        let header = read_header(&file).map_err(|error| unusable(&item, &error))?;
        let file = Arc::new(file);
        Ok(Self {
            identity: Identity { source: item.source.clone(), header: Sha256::digest(&header).into() },
            item,
            unpacked: OnceLock::new(),
            hashes: hash(&file),
            embedding: OnceLock::new(),
            checked: OnceLock::new(),
            file: Some(file),
            opened: OPENED.fetch_add(1, Ordering::Relaxed),
        })
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

    /// Its tensors, of the bytes that were pinned; of what is built in unpacked once more.
    pub(crate) fn tensors(&self) -> Result<Tensors> {
        let (Some(file), Source::File { path, .. }) = (&self.file, &self.item.source) else {
            let nothing = || Error::internal(format!("'{}' is built in and has no file", self.item.name));
            return DemoModel::checkpoint()?.into_file().ok_or_else(nothing);
        };
        let opened = files::open_file(file, path);
        // As above.
        self.check()?;
        Ok(opened?)
    }

    /// All of its bytes, of which there may be no more than so many.
    pub(crate) fn bytes(&self, most: u64) -> Result<Vec<u8>> {
        let wrong = |why: &str| {
            let text = format!("{} '{}': {why}", self.item.kind, self.item.name);
            Error::new(Class::Model, text)
        };
        let Some(file) = self.file.as_ref().filter(|file| file.metadata().is_ok_and(|told| told.is_file()))
        else {
            return Err(wrong("is no file of its own"));
        };
        let size = self.item.size();
        if size > most {
            return Err(wrong(&format!("is {size} bytes long, {most} are read")));
        }
        let read = read_range(file, 0, size);
        self.check()?;
        read.map_err(|error| wrong(&error.to_string()))
    }

    /// Its graph, if it is an ONNX file; a process is started for it.
    pub(crate) fn graph(&self, limits: onnx::Limits, cancelled: &dyn Fn() -> bool) -> Result<Graph> {
        let bytes = self.bytes(LARGEST_GRAPH)?;
        let (Some(file), Source::File { seen, .. }) = (&self.file, &self.item.source) else {
            return Err(self.no_graph("it is no file of its own"));
        };
        let (own, seen, header) = (Arc::clone(file), *seen, self.identity.header);
        let is_same = Box::new(move || is_same(&own, &seen, &header).unwrap_or(false));
        let file = GraphFile { file: Arc::clone(file), size: bytes.len() as u64, is_same };
        Graph::open(file, bytes, limits, cancelled).map_err(|failure| match failure {
            onnx::Failure::Cancelled => Error::new(Class::Cancelled, failure.text()),
            _ => self.no_graph(failure.text()),
        })
    }

    /// What an ONNX file says of itself.
    pub(crate) fn graph_header(&self) -> Result<Header> {
        onnx::read(&self.bytes(LARGEST_GRAPH)?).map_err(|why| self.no_graph(&why))
    }

    /// Its network, if it is one that stands alone and is known.
    pub(crate) fn network(&self) -> Result<KnownNetwork> {
        KnownNetwork::of(&self.tensors()?)?.ok_or_else(|| {
            let Item { kind, name, .. } = &self.item;
            let known = match kind {
                LibraryKind::Upscaler => {
                    "; of upscalers it runs RRDBNet (ESRGAN, Real-ESRGAN, BSRGAN), compact Real-ESRGAN, SPAN, SwinIR and DAT"
                }
                LibraryKind::Restorer => "; of restorers it runs GFPGAN 1.2 to 1.4 and CodeFormer",
                _ => "",
            };
            let text =
                format!("{kind} '{name}' is no network that this version of latentd runs by itself{known}");
            Error::new(Class::Model, text)
        })
    }

    /// Its network, whose numbers were looked at: as a job is planned with it.
    pub(crate) fn checked_network(&self) -> Result<KnownNetwork> {
        let network = self.network()?;
        if self.checked.get().is_none() {
            network.check(&self.tensors()?)?;
            self.check()?;
            self.checked.set(()).ok();
        }
        Ok(network)
    }

    /// Bytes that its network takes in memory, if that is this one: packed weights take no more than twice what they do in a
    /// file of f16.
    pub(crate) fn bytes_of_network(&self, network: &KnownNetwork) -> u64 {
        network.weight_bytes().unwrap_or(2 * self.item.size())
    }

    fn no_graph(&self, why: &str) -> Error {
        let text = format!("{} '{}' cannot be run as ONNX: {why}", self.item.kind, self.item.name);
        Error::new(Class::Model, text)
    }

    /// Its vectors, if it is an embedding; read once.
    pub(crate) fn embedding(&self) -> Result<Arc<Embedding>> {
        if let Some(embedding) = self.embedding.get() {
            return Ok(Arc::clone(embedding));
        }
        let read = Arc::new(self.read_embedding()?);
        // What was written to meanwhile is not what was pinned.
        self.check()?;
        Ok(Arc::clone(self.embedding.get_or_init(|| read)))
    }

    fn read_embedding(&self) -> Result<Embedding> {
        let (Some(file), Some(path)) = (&self.file, self.item.path()) else {
            return Ok(Embedding::of(&self.tensors()?)?);
        };
        if !PICTURES.iter().any(|format| self.item.facts.format.as_deref() == Some(format)) {
            return Ok(Embedding::of(&self.tensors()?)?);
        }
        let bytes = read_range(file, 0, self.item.size().min(LARGEST_PICTURE + 1));
        let bytes =
            bytes.map_err(|error| Error::new(Class::Model, format!("{}: {error}", path.display())))?;
        let carried = embedding_of_picture(path, &bytes)?;
        carried.map(|carried| carried.embedding).ok_or_else(|| {
            Error::new(Class::Model, format!("{}: carries no embedding any more", path.display()))
        })
    }

    /// An error if its bytes are no longer those that were pinned: somebody wrote to the file itself.
    pub(crate) fn check(&self) -> Result<()> {
        let (Some(file), Source::File { path, seen }) = (&self.file, &self.item.source) else {
            return Ok(());
        };
        if is_same(file, seen, &self.identity.header).unwrap_or(false) {
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
        self.hashes(cancelled).map(|hashes| hashes.sha256)
    }

    /// What infotexts name a LoRA by, in hex: the SHA-256 of a safetensors file without its header, as its trainer noted it or
    /// as it is computed; of another file its SHA-256.
    pub(crate) fn addon_hash(&self, cancelled: &dyn Fn() -> bool) -> Result<String> {
        if let Some(noted) = &self.item.facts.addon_hash {
            return Ok(noted.clone());
        }
        self.hashes(cancelled).map(|hashes| hashes.addon.unwrap_or(hashes.sha256))
    }

    fn hashes(&self, cancelled: &dyn Fn() -> bool) -> Result<Hashes> {
        match self.hashes.wait(cancelled) {
            Some(Ok(hashes)) => {
                self.check()?;
                Ok(hashes)
            }
            Some(Err(error)) => {
                let text = format!("{} '{}' cannot be hashed: {error}", self.item.kind, self.item.name);
                Err(Error::new(Class::Model, text))
            }
            None => Err(Error::new(Class::Cancelled, "cancelled while its model was hashed")),
        }
    }

    /// How many of its bytes were hashed so far.
    pub(super) fn hashed_bytes(&self) -> u64 {
        self.hashes.bytes()
    }
}

/// Whether the bytes of a file are those that it had when it was seen so, with a header of this digest.
fn is_same(file: &File, seen: &Seen, header: &[u8; 32]) -> io::Result<bool> {
    let now = Stamp::of_open(file)?;
    Ok(now.has_bytes_of(&seen.file) && <[u8; 32]>::from(Sha256::digest(read_header(file)?)) == *header)
}

/// The bytes that say what is in a file: of safetensors the length and the JSON at the beginning; of other formats, which
/// have it at either end, so many bytes of both; of a model's folder the names and sizes in it.
fn read_header(file: &File) -> io::Result<Vec<u8>> {
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        let mut names = Vec::new();
        for (path, file) in model_folder::files(file)? {
            names.extend(format!("{}\0{}\0", path.display(), file.metadata()?.len()).into_bytes());
        }
        return Ok(names);
    }
    let size = metadata.len();
    let mut start = [0; 9];
    if size >= start.len() as u64 {
        file.read_exact_at(&mut start, 0)?;
    }
    let [length @ .., opening] = start;
    let length = u64::from_le_bytes(length);
    if opening == b'{' && length <= size - 8 {
        if length > LARGEST_HEADER as u64 {
            return Err(io::Error::other("its header is longer than it may be"));
        }
        return read_range(file, 0, length + 8);
    }
    let end = size.saturating_sub(HEADER_ENDS).max(HEADER_ENDS.min(size));
    let mut header = read_range(file, 0, HEADER_ENDS.min(size))?;
    header.extend(read_range(file, end, size - end)?);
    Ok(header)
}

fn read_range(file: &File, start: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, start)?;
    Ok(bytes)
}

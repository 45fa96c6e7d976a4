//! What plugins are given beside what is drawn: the pictures and library files that parameters name.

use std::sync::Arc;
use std::time::Duration;

use latentd_client::protocol::LibraryKind;
use latentd_models::networks::standalone::Standalone;
use latentd_models::nn::Precision;
use rmpv::Value;

use super::engine_kinds::Kind;
use super::objects::Image;
use crate::error::{Class, Error, Result};
use crate::library::Pinned;
use crate::memory::Base;
use crate::onnx::{Graph, Limits};

/// A file that a plugin saves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileToSave<'a> {
    pub kind: LibraryKind,
    /// Without folder and extension, as the plugin gives it.
    pub name: &'a str,
    /// A safetensors file.
    pub bytes: &'a [u8],
    /// Whether one of this name is replaced.
    pub replace: bool,
}

/// Where pictures and files come from.
pub(crate) trait Resources: Sync {
    /// Takes the picture that a field's value is, in one of the forms of the wire. Its header is checked, nothing is decoded.
    fn picture(&self, field: &str, given: &Value) -> Result<Arc<dyn HeldPicture>>;

    /// Bytes that the pixels of all pictures of one plugin's parameters may take.
    fn most_picture_bytes(&self) -> u64;

    /// The file of a kind that a name means, held open as it is now.
    fn file(&self, kind: LibraryKind, name: &str) -> Result<Arc<Pinned>>;

    /// Writes a file into the folder for its kind; it may be named from then on.
    fn save(&self, file: &FileToSave<'_>) -> Result<Arc<Pinned>> {
        let text = format!("{} '{}': there is no library here", file.kind.name(), file.name);
        Err(Error::new(Class::Unsupported, text))
    }

    /// Removes a file.
    fn remove(&self, file: &Pinned) -> Result<()> {
        let text = format!("'{}': there is no library here", file.item().name);
        Err(Error::new(Class::Unsupported, text))
    }

    /// The ONNX graph of a file, whose memory is counted as long as somebody has it.
    fn graph(&self, file: &Pinned) -> Result<Arc<Graph>>;

    /// What networks compute in.
    fn precision(&self) -> Precision {
        Precision::F32
    }

    /// The network of a file, over a checkpoint's UNet if it is built so, in the job's precision; its memory is counted as the
    /// graphs'.
    fn network(&self, file: &Pinned, base: Option<&Base>) -> Result<Arc<dyn Standalone>>;

    /// That there is an engine of this name, which stands in a field.
    fn check_engine(&self, _kind: Kind, _name: &str, _field: &str) -> Result<()> {
        Ok(())
    }

    /// The names of a kind, as they are listed.
    fn names(&self, kind: LibraryKind) -> Vec<String>;

    /// A file's SHA-256 in hex, if it was ever computed.
    fn known_sha256(&self, file: &Pinned) -> Option<String>;

    /// What running a graph may take.
    fn graph_limits(&self) -> Limits;
}

/// A picture that was given, as its file has it.
pub(crate) trait HeldPicture: Send + Sync {
    /// Width, height and channels of what it is decoded to, as it is seen.
    fn size(&self) -> [usize; 3];

    /// Its SHA-256, by which another request may name it for a while.
    fn name(&self) -> &str;

    /// Its pixels, turned as it is seen; of a mask how much of each counts.
    fn decoded(&self, is_mask: bool) -> Result<Image>;
}

/// Where there is nothing.
pub(crate) struct Nothing;

impl Resources for Nothing {
    fn picture(&self, field: &str, _given: &Value) -> Result<Arc<dyn HeldPicture>> {
        Err(Error::new(Class::Unsupported, format!("{field}: there are no pictures here")))
    }

    fn most_picture_bytes(&self) -> u64 {
        0
    }

    fn file(&self, kind: LibraryKind, name: &str) -> Result<Arc<Pinned>> {
        let kind = kind.name();
        Err(Error::new(Class::Unsupported, format!("{kind} '{name}': there is no library here")))
    }

    fn graph(&self, file: &Pinned) -> Result<Arc<Graph>> {
        file.graph(self.graph_limits(), &|| false).map(Arc::new)
    }

    fn network(&self, file: &Pinned, _base: Option<&Base>) -> Result<Arc<dyn Standalone>> {
        let text = format!("'{}': networks are not run here", file.item().name);
        Err(Error::new(Class::Unsupported, text))
    }

    fn names(&self, _kind: LibraryKind) -> Vec<String> {
        vec![]
    }

    fn known_sha256(&self, _file: &Pinned) -> Option<String> {
        None
    }

    fn graph_limits(&self) -> Limits {
        Limits { threads: 1, time: Duration::from_mins(1), bytes: 1 << 30 }
    }
}

//! A checkpoint in a library of its own, for tests.

use std::path::{Path, PathBuf};

use crate::library::{Library, ModelFiles, Patient};

pub(super) struct Fixture {
    pub file: PathBuf,
    library: Library,
    _folder: tempfile::TempDir,
}

impl Fixture {
    /// A copy of the small checkpoint with random weights.
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let models = folder.path().join("models");
        let file = models.join("Stable-diffusion/tiny.safetensors");
        std::fs::create_dir_all(models.join("Stable-diffusion")).expect("made");
        let from = "../tests/fixtures/models/Stable-diffusion/tiny-sd1.safetensors";
        std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join(from), &file).expect("copied");
        let library = Library::open(vec![models], folder.path(), |_| ());
        library.rescan();
        Self { file, library, _folder: folder }
    }

    /// The file as it is now.
    pub(super) fn pin(&self) -> ModelFiles {
        let checkpoint = self.library.pin(Some("tiny"), "", &Patient).expect("pinned");
        ModelFiles { checkpoint, vae: None }
    }
}

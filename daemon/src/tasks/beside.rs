//! Pictures that plugins leave beside a request's results, as long as it is drawn.

use latentd_client::protocol;

use super::packing::Packing;
use crate::error::Result;
use crate::plugins::{ARTIFACT_BYTES, Artifact, MOST_ARTIFACTS, left_out};

/// Those of all that a request draws.
#[derive(Default)]
pub(super) struct Beside {
    /// Of what was drawn last.
    new: Vec<Artifact>,
    pub packed: Vec<protocol::Artifact>,
    /// Bytes of their pixels.
    bytes: usize,
    /// Of whom some are left out.
    left_out: Option<String>,
    /// How many the job has of requests before this one.
    before: usize,
}

impl Beside {
    /// Where the job has so many already.
    pub(super) fn after(before: usize) -> Self {
        Self { before, ..Self::default() }
    }

    /// Takes what plugins left of something that was drawn, as far as there may be so many.
    pub(super) fn add(&mut self, artifacts: Vec<Artifact>) {
        for artifact in artifacts {
            let bytes = self.bytes + artifact.picture.pixels.len();
            if self.packed.len() + self.new.len() >= MOST_ARTIFACTS || bytes > ARTIFACT_BYTES {
                self.left_out.get_or_insert(artifact.plugin);
                continue;
            }
            self.bytes = bytes;
            self.new.push(artifact);
        }
    }

    /// Packs what is new; `place` says which image of the result a picture of the drawing is.
    pub(super) fn pack(&mut self, packing: &mut Packing<'_>, place: impl Fn(usize) -> usize) -> Result<()> {
        for artifact in std::mem::take(&mut self.new) {
            let Artifact { plugin, name, image, picture, lease } = artifact;
            let picture = packing.pack_artifact(picture, self.before + self.packed.len())?;
            drop(lease);
            let image = image.map(|image| u32::try_from(place(image)).unwrap_or(u32::MAX));
            self.packed.push(protocol::Artifact { plugin, name, image, picture });
        }
        Ok(())
    }

    /// What to tell who asked, if some are left out.
    pub(super) fn left_out(&self) -> Option<String> {
        let plugin = self.left_out.as_ref()?;
        Some(format!("plugin '{plugin}': {}", left_out()))
    }
}

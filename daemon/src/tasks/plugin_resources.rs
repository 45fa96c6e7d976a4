//! The pictures and library files that plugins' parameters name.

use std::sync::Arc;

use latentd_client::protocol::{ImageIn, LibraryKind};
use latentd_models::image::{Channels, PictureHeader};
use latentd_models::networks::standalone::Standalone;
use latentd_models::nn::Precision;
use rmpv::Value;

use super::given::{Given, Sources, wrong};
use super::saving_files;
use super::studio::Studio;
use super::task::Watch;
use crate::error::{Error, Result};
use crate::library::Pinned;
use crate::memory::Base;
use crate::onnx::{Graph, Limits};
use crate::plugins::{FileToSave, HeldPicture, Image, Kind, Resources};

/// What a studio has, for a request that is watched.
pub(super) struct StudioResources<'a> {
    pub studio: &'a Arc<Studio>,
    pub watch: &'a dyn Watch,
    /// What networks compute in.
    pub precision: Precision,
}

/// A picture that a plugin's field has.
struct Held {
    studio: Arc<Studio>,
    field: String,
    given: Given,
    size: [usize; 3],
    name: String,
}

impl Resources for StudioResources<'_> {
    fn picture(&self, field: &str, given: &Value) -> Result<Arc<dyn HeldPicture>> {
        let image: ImageIn = rmpv::ext::from_value(given.clone()).map_err(|error| {
            let forms = "give one of png, jpeg, webp, path, blob, or raw with width, height and channels";
            let error = error.to_string();
            let error = error.trim_start_matches("error while decoding value: ");
            Error::invalid(format!("{field}: is no picture: {error}; {forms}"))
        })?;
        let sources = Sources::of(self.studio);
        let given = Given::new(field, image, &sources)?;
        let PictureHeader { width, height, channels, .. } = given.header(field)?;
        let (width, height) = (width as usize, height as usize);
        let is_turned = given.orientation(field)?.is_transposed();
        let (width, height) = if is_turned { (height, width) } else { (width, height) };
        // Grey is told as colours, so that plugins see it as they see other pictures.
        let channels = channels.count().max(3);
        let (studio, field, name) = (Arc::clone(self.studio), field.to_owned(), given.keep(&sources));
        Ok(Arc::new(Held { studio, field, given, size: [width, height, channels], name }))
    }

    fn most_picture_bytes(&self) -> u64 {
        self.studio.settings.get().result_bytes
    }

    fn file(&self, kind: LibraryKind, name: &str) -> Result<Arc<Pinned>> {
        self.studio.library.pin_addon(kind, name)
    }

    fn save(&self, file: &FileToSave<'_>) -> Result<Arc<Pinned>> {
        saving_files::save(self.studio, file)
    }

    fn remove(&self, file: &Pinned) -> Result<()> {
        saving_files::remove(self.studio, file)
    }

    fn graph(&self, file: &Pinned) -> Result<Arc<Graph>> {
        self.studio.device.memory.graph(file, self.graph_limits(), &|| self.watch.is_cancelled())
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn network(&self, file: &Pinned, base: Option<&Base>) -> Result<Arc<dyn Standalone>> {
        self.studio.device.memory.network((file, base), self.precision, &|| self.watch.is_cancelled())
    }

    fn check_engine(&self, kind: Kind, name: &str, field: &str) -> Result<()> {
        let files = |kind| self.studio.library.names(kind);
        self.studio.plugins.check_engine(kind, name, field, &files)
    }

    fn names(&self, kind: LibraryKind) -> Vec<String> {
        self.studio.library.names(kind)
    }

    fn known_sha256(&self, file: &Pinned) -> Option<String> {
        self.studio.library.entry(file.item()).hash
    }

    fn graph_limits(&self) -> Limits {
        let drawing = self.studio.settings.get();
        let budget = self.studio.device.memory.budget();
        let bytes = if drawing.onnx_bytes == 0 { budget / 2 } else { drawing.onnx_bytes };
        Limits { threads: self.studio.threads(), time: drawing.onnx_time, bytes }
    }
}

impl HeldPicture for Held {
    fn size(&self) -> [usize; 3] {
        self.size
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn decoded(&self, is_mask: bool) -> Result<Image> {
        let (field, sources) = (&self.field, Sources::of(&self.studio));
        let orientation = self.given.orientation(field)?;
        let picture = self.given.decoded(field, &sources, |picture| picture.oriented(orientation))?;
        let (width, height, channels) = (picture.width, picture.height, picture.channels);
        let (channels, pixels) = match channels {
            _ if is_mask => (1, picture.mask()),
            Channels::Rgba => (4, picture.pixels),
            Channels::Grey | Channels::Rgb => (3, picture.into_rgb().pixels),
        };
        let [own_width, own_height, own_channels] = self.size;
        if (width, height) != (own_width, own_height) || !(is_mask || channels == own_channels) {
            return Err(wrong(field, &latentd_models::Error::Request("its header is wrong".into())));
        }
        Ok(Image { width, height, channels, pixels: Arc::new(pixels) })
    }
}

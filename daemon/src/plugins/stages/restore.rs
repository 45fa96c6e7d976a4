//! A picture that was drawn, whose faces an engine restores.

use latentd_models::image::Picture;
use latentd_models::pipeline::FaceRestoration;

use super::JobStages;
use crate::error::Error;
use crate::plugins::engine_kinds::Kind;
use crate::plugins::engines::restore;

impl JobStages<'_> {
    pub(super) fn restored(
        &self,
        restoration: &FaceRestoration,
        picture: &Picture,
    ) -> latentd_models::Result<Picture> {
        let FaceRestoration { restorer: name, weight } = restoration;
        let mut engines = self.plugins.engines.iter();
        let engine = engines.find(|engine| engine.kind == Kind::Restorer && engine.entry == *name);
        let engine = engine.ok_or_else(|| Error::internal(format!("the restorer '{name}' was not planned")));
        let made = engine.and_then(|engine| restore(&self.engines, engine, picture, *weight));
        self.hear_engines()?;
        made.map_err(|error| self.fail(error))
    }
}

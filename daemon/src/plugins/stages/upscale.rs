//! A picture on the way that an engine makes larger.

use latentd_models::image::Picture;

use super::JobStages;
use crate::error::Error;
use crate::plugins::engine_kinds::Kind;
use crate::plugins::engines::upscale;

impl JobStages<'_> {
    pub(super) fn upscaled(
        &self,
        name: &str,
        picture: &Picture,
        told: &mut dyn FnMut(usize, usize),
    ) -> latentd_models::Result<Picture> {
        let mut engines = self.plugins.engines.iter();
        let engine = engines.find(|engine| engine.kind == Kind::Upscaler && engine.entry == name);
        let engine = engine.ok_or_else(|| Error::internal(format!("the upscaler '{name}' was not planned")));
        let made = engine.and_then(|engine| upscale(&self.engines, engine, picture, told));
        self.hear_engines()?;
        made.map_err(|error| self.fail(error))
    }

    /// Takes what engines left, and want to be told.
    pub(super) fn hear_engines(&self) -> latentd_models::Result<()> {
        self.artifacts.borrow_mut().extend(self.engines.artifacts());
        for (plugin, text) in self.engines.notices() {
            self.hear(&plugin, vec![text]).map_err(|error| self.fail(error))?;
        }
        Ok(())
    }
}

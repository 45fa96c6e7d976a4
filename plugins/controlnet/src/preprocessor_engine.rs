//! The modules as engines of kind `preprocessor`, for other plugins.

use latentd_plugin_api::{EngineRun, Preprocessor, Result};

use crate::preprocessing::{Asked, Preprocessing, image, picture};
use crate::preprocessors::Module;
use crate::running::ControlNet;

impl Preprocessor for ControlNet {
    fn preprocess(&self, run: &EngineRun<'_>) -> Result<()> {
        let call = run.call();
        let size = (run.width as usize, run.height as usize);
        let of = Preprocessing::of(
            Module::called(run.entry)?,
            (run.image.width, run.image.height),
            size,
            &run.params::<Asked>()?,
        )?;
        call.check()?;
        run.replace(image(call, &of.made(&picture(&run.image)?)?)?)
    }
}

//! `txt2img`: text to pictures.

use std::sync::Arc;

use latentd_client::protocol::{OnDisconnect, Txt2ImgParams, Txt2ImgResult};

use super::device::DeviceId;
use super::draws::Draws;
use super::studio::Studio;
use super::task::{JobMethod, Run, Watch};
use crate::error::Result;

/// A request with everything settled.
pub(crate) struct Txt2Img(Draws);

impl JobMethod for Txt2Img {
    const NAME: &'static str = "txt2img";
    type Params = Txt2ImgParams;
    type Result = Txt2ImgResult;

    fn on_disconnect(params: &Txt2ImgParams) -> OnDisconnect {
        params.on_disconnect
    }

    fn resolve(params: Txt2ImgParams, studio: &Arc<Studio>, watch: &dyn Watch) -> Result<Self> {
        Draws::resolve(params, None, studio, watch).map(Self)
    }

    fn device(&self) -> DeviceId {
        self.0.device()
    }

    fn steps(&self) -> u32 {
        self.0.steps()
    }

    fn run(&self, run: &Run<'_>) -> Result<Txt2ImgResult> {
        self.0.run(run)
    }
}

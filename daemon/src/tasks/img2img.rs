//! `img2img`: pictures from pictures.

use std::sync::Arc;

use latentd_client::protocol::{Img2ImgParams, OnDisconnect, Txt2ImgResult};

use super::device::DeviceId;
use super::draw::Begun;
use super::draws::Draws;
use super::studio::Studio;
use super::task::{JobMethod, Run, Watch};
use crate::error::Result;

/// A request with everything settled.
pub(crate) struct Img2Img(Draws);

impl JobMethod for Img2Img {
    const NAME: &'static str = "img2img";
    type Params = Img2ImgParams;
    type Result = Txt2ImgResult;

    fn on_disconnect(params: &Img2ImgParams) -> OnDisconnect {
        params.drawing.on_disconnect
    }

    fn resolve(mut params: Img2ImgParams, studio: &Arc<Studio>, watch: &dyn Watch) -> Result<Self> {
        let drawing = std::mem::take(&mut params.drawing);
        Draws::resolve(drawing, Some(Begun::Pictures(params)), studio, watch).map(Self)
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

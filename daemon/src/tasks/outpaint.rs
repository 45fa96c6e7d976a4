//! `outpaint`: a picture continued beyond its sides.

use std::sync::Arc;

use latentd_client::protocol::{OnDisconnect, OutpaintParams, Txt2ImgResult};

use super::device::DeviceId;
use super::draw::Begun;
use super::draws::Draws;
use super::studio::Studio;
use super::task::{JobMethod, Run, Watch};
use crate::error::Result;

/// A request with everything settled.
pub(crate) struct Outpaint(Draws);

impl JobMethod for Outpaint {
    const NAME: &'static str = "outpaint";
    type Params = OutpaintParams;
    type Result = Txt2ImgResult;

    fn on_disconnect(params: &OutpaintParams) -> OnDisconnect {
        params.drawing.on_disconnect
    }

    fn resolve(mut params: OutpaintParams, studio: &Arc<Studio>, watch: &dyn Watch) -> Result<Self> {
        let drawing = std::mem::take(&mut params.drawing);
        Draws::resolve(drawing, Some(Begun::Continued(params)), studio, watch).map(Self)
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

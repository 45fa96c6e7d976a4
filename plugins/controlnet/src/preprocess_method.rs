//! `controlnet.modules` and `controlnet.preprocess`.

use latentd_plugin_api::{
    Call, EngineKind, Error, GivenImage, Image, Job, MethodCall, Methods, Plan, Result, Sent,
};
use serde::{Deserialize, Serialize};

use crate::ControlNet;
use crate::preprocessing::{Asked, Preprocessing, image, picture};
use crate::preprocessors::{MODULES, Module};

/// What clients call.
pub const PREPROCESS: &str = "controlnet.preprocess";

#[derive(Deserialize)]
struct Params {
    image: GivenImage,
    module: String,
    mask: Option<GivenImage>,
    width: u32,
    height: u32,
    processor_res: f64,
    pixel_perfect: bool,
    threshold_a: f64,
    threshold_b: f64,
    seed: u32,
    resize_mode: String,
}

#[derive(Serialize)]
struct Modules {
    modules: &'static [Module],
}

#[derive(Serialize)]
struct Made {
    images: Vec<Sent>,
}

impl Params {
    /// What is to be done of it here; nothing if the module is another plugin's engine.
    fn own(&self, call: &Call<'_>) -> Result<Option<Preprocessing>> {
        let Ok(module) = Module::called(&self.module) else { return Ok(None) };
        let picture = self.image.image(call)?;
        let size = (self.width as usize, self.height as usize);
        let of = Preprocessing::of(module, (picture.width, picture.height), size, &self.asked())?;
        self.mask(call, &of, &picture)?;
        Ok(Some(of))
    }

    /// The mask that a module looks at.
    fn mask<'a>(
        &self,
        call: &Call<'a>,
        of: &Preprocessing,
        picture: &Image<'_>,
    ) -> Result<Option<Image<'a>>> {
        let name = of.module.name;
        if !of.module.mask {
            return Ok(None);
        }
        let Some(mask) = &self.mask else {
            let text =
                format!("mask: {name} needs one, white where it is to be drawn, as large as the image");
            return Err(Error::invalid(text));
        };
        let mask = mask.image(call)?;
        if (mask.width, mask.height) == (picture.width, picture.height) {
            return Ok(Some(mask));
        }
        Err(Error::invalid(format!(
            "mask: {}x{} is not the image's {}x{}",
            mask.width, mask.height, picture.width, picture.height
        )))
    }

    fn asked(&self) -> Asked {
        Asked {
            processor_res: self.processor_res,
            pixel_perfect: self.pixel_perfect,
            threshold_a: self.threshold_a,
            threshold_b: self.threshold_b,
            seed: self.seed,
            resize_mode: self.resize_mode.clone(),
        }
    }
}

/// Whether a job of this method can be done.
pub fn plan(job: &Job<'_>, plan: &Plan<'_>) -> Result<bool> {
    let params: Params = job.params()?;
    if params.own(&job.call)?.is_none() {
        plan.engine(EngineKind::Preprocessor, &params.module, 1)?;
    }
    Ok(true)
}

impl Methods for ControlNet {
    fn quick(method: &MethodCall<'_>) -> Result<()> {
        match method.name {
            "modules" => method.reply(&Modules { modules: MODULES }),
            _ => Err(method.unknown()),
        }
    }

    fn method(&self, method: &MethodCall<'_>) -> Result<()> {
        if method.name != "preprocess" {
            return Err(method.unknown());
        }
        let (params, call): (Params, _) = (method.params()?, method.call);
        let given = params.image.image(&call)?;
        let Some(of) = params.own(&call)? else {
            let engine = call.engine(EngineKind::Preprocessor, &params.module);
            let engine = engine.size(params.width, params.height).params(&params.asked())?;
            let made =
                engine.run(given)?.image.ok_or_else(|| Error::failed("the preprocessor made no image"))?;
            return method.reply(&Made { images: vec![method.sent(made)?] });
        };
        let picture = picture(&given)?;
        call.check()?;
        let sent = match params.mask(&call, &of, &given)? {
            Some(mask) => {
                let (width, height, data) = of.shown(&picture, &mask.read()?);
                let mut image = call.new_image(width, height, 4)?;
                image.pixels_mut().copy_from_slice(&data);
                method.sent(image)?
            }
            None => method.sent(image(&call, &of.made(&picture)?)?)?,
        };
        method.reply(&Made { images: vec![sent] })
    }
}

//! `controlnet.models`, `controlnet.modules` and `controlnet.preprocess`.

use latentd_plugin_api::{Call, Error, GivenImage, Image, Job, MethodCall, Methods, Result, Sent};
use serde::{Deserialize, Serialize};

use crate::preprocessing::{Asked, Preprocessing, image, picture};
use crate::preprocessors::{MODULES, Module};
use crate::running::ControlNet;

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
struct Models<'a> {
    models: Vec<&'a str>,
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
    /// What is to be done, and with which mask: one of white where it is to be drawn; without one that is nowhere.
    fn preprocessing<'a>(&self, call: &Call<'a>) -> Result<(Preprocessing, Option<Image<'a>>)> {
        let picture = self.image.image(call)?;
        let size = (self.width as usize, self.height as usize);
        let module = Module::called(&self.module)?;
        let of = Preprocessing::of(module, (picture.width, picture.height), size, &self.asked())?;
        let mask = self.mask.map(|mask| mask.image(call)).transpose()?.filter(|_| module.mask);
        match mask {
            Some(mask) if (mask.width, mask.height) != (picture.width, picture.height) => {
                Err(Error::invalid(format!(
                    "mask: {}x{} is not the image's {}x{}",
                    mask.width, mask.height, picture.width, picture.height
                )))
            }
            mask => Ok((of, mask)),
        }
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
pub fn plan(job: &Job<'_>) -> Result<bool> {
    job.params::<Params>()?.preprocessing(&job.call)?;
    Ok(true)
}

impl Methods for ControlNet {
    fn quick(method: &MethodCall<'_>) -> Result<()> {
        match method.name {
            "models" => method.reply(&Models { models: method.call.file_names("controlnet")? }),
            "modules" => method.reply(&Modules { modules: MODULES }),
            _ => Err(method.unknown()),
        }
    }

    fn method(&self, method: &MethodCall<'_>) -> Result<()> {
        if method.name != "preprocess" {
            return Err(method.unknown());
        }
        let (params, call): (Params, _) = (method.params()?, method.call);
        let (of, mask) = params.preprocessing(&call)?;
        let picture = picture(&params.image.image(&call)?)?;
        call.check()?;
        let sent = if of.module.mask {
            let mask = match &mask {
                Some(mask) => mask.read()?,
                None => vec![0; picture.width * picture.height].into(),
            };
            let (width, height, data) = of.shown(&picture, &mask);
            let mut image = call.new_image(width, height, 4)?;
            image.pixels_mut().copy_from_slice(&data);
            method.sent(image)?
        } else {
            method.sent(image(&call, &of.made(&picture)?)?)?
        };
        method.reply(&Made { images: vec![sent] })
    }
}

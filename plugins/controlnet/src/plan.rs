//! What a request asks of the plugin, looked at as it comes.

use latentd_plugin_api::abi::{
    LATENTD_ATTENTION, LATENTD_CONTROL_RESIDUALS, LATENTD_INFOTEXT_WRITE, LATENTD_PASS_BEGIN,
};
use latentd_plugin_api::{Call, Error, File, Job, JobPlan, Model, Plan, Result};
use serde::Deserialize;

use crate::network::{FEATURES, HINT, Kind, Network, RESIDUALS};
use crate::preprocess_method::{self, PREPROCESS};
use crate::preprocessors::hint::check_between;
use crate::preprocessors::resolution::pixel_perfect;
use crate::preprocessors::{Module, Settings};
use crate::running::ControlNet;
use crate::units::{Params, Unit};

/// What of the resolved request counts here.
#[derive(Deserialize)]
pub struct Request {
    #[serde(default)]
    seed: i64,
    #[serde(default = "same")]
    subseed: i64,
    #[serde(default)]
    steps: u32,
    #[serde(default = "usual")]
    width: usize,
    #[serde(default = "usual")]
    height: usize,
    #[serde(default)]
    pub enable_hr: bool,
    #[serde(default)]
    hr_scale: f64,
    #[serde(default)]
    hr_resize_x: usize,
    #[serde(default)]
    hr_resize_y: usize,
}

/// The subseed that is the seed.
fn same() -> i64 {
    -1
}

/// A side where none is told.
fn usual() -> usize {
    512
}

/// Pixels of a mask of where a unit acts: each place in the UNet has numbers of its own made of it.
const MOST_OF_REGION: usize = 1 << 22;

/// Tokens of the longest prompt that is planned for.
const TOKENS: usize = 3 * 77;

impl Request {
    /// Of a job that draws.
    pub fn of(job: &Job<'_>) -> Result<Self> {
        job.request()
    }

    /// Pixels of the request's own pass.
    pub fn size(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    /// What chance in a module begins with: 32 bits of seed and subseed, which is as the seed if there is none.
    fn chance(&self) -> u32 {
        let subseed = if self.subseed == -1 { self.seed } else { self.subseed };
        self.seed.wrapping_add(subseed) as u32
    }

    /// Pixels of the largest pass, about.
    fn largest(&self) -> (usize, usize) {
        if !self.enable_hr {
            return self.size();
        }
        let share = |to: usize, from: usize| if to == 0 { 0.0 } else { to as f64 / from.max(1) as f64 };
        let resized = share(self.hr_resize_x, self.width).max(share(self.hr_resize_y, self.height));
        let scale = if resized > 0.0 { resized } else { self.hr_scale.max(1.0) };
        let side = |side: usize| ((side as f64 * scale.max(1.0)).ceil() as usize).next_multiple_of(8);
        (side(self.width), side(self.height))
    }
}

/// A unit that takes part.
pub struct Planned {
    /// Which of the request's units.
    index: usize,
    pub unit: Unit,
    pub module: &'static Module,
    pub settings: Settings,
    pub file: File,
}

impl Planned {
    /// Those of a job that are enabled; an error names the unit.
    pub fn all(job: &Job<'_>) -> Result<Vec<Self>> {
        let units = job.params::<Params>()?.units.into_iter().enumerate().filter(|(_, unit)| unit.enabled);
        let units: Vec<_> = units.collect();
        if units.is_empty() {
            return Ok(vec![]);
        }
        let request = Request::of(job)?;
        units
            .into_iter()
            .map(|(index, unit)| {
                Self::of(&job.call, (index, unit), &request).map_err(|error| in_unit(index, &error))
            })
            .collect()
    }

    fn of(call: &Call<'_>, (index, unit): (usize, Unit), request: &Request) -> Result<Self> {
        unit.check()?;
        let module = Module::called(&unit.module)?;
        let (a, b) = (unit.threshold_a, unit.threshold_b);
        let settings = module.settings(unit.processor_res, a, b, request.chance())?;
        if module.without_model {
            let text = format!(
                "module: {} works within the UNet's attention, which this version does not do yet",
                module.name
            );
            return Err(Error::unsupported(text));
        }
        let Some(file) = unit.file() else {
            let names = call.file_names("controlnet")?;
            let there = if names.is_empty() {
                "there are none in the library".to_owned()
            } else {
                format!("there are {}", names.join(", "))
            };
            return Err(Error::invalid(format!(
                "model: a unit with module {} needs one; {there}",
                module.name
            )));
        };
        Ok(Self { index, unit, module, settings, file })
    }

    /// The file's own name.
    pub fn model_name<'a>(&self, call: &Call<'a>) -> Result<&'a str> {
        Ok(self.file.info(call)?.name)
    }

    /// What can be told of it before anything is drawn.
    fn check(&self, job: &Job<'_>, model: &Model, request: &Request) -> Result<Network> {
        let Self { unit, module, settings, file, .. } = self;
        let call = &job.call;
        let network = Network::of(call, *file, model)?;
        let (is_seen, is_clips) = (network.ip_adapter.is_some(), module.is_of_ip_adapters());
        if is_clips && !is_seen || is_seen && !is_clips && module.name != "none" {
            let text = format!(
                "module: {} is not for model '{}'; {}",
                module.name,
                self.model_name(call)?,
                if is_seen {
                    "IP-Adapters take ip-adapter-auto, which finds what they need"
                } else {
                    "it is for IP-Adapters"
                }
            );
            return Err(Error::invalid(text));
        }
        let mut sizes = vec![];
        for image in unit.images() {
            let image = image.image(call)?;
            let (size, mode) = ((image.width, image.height), unit.resize_mode.0);
            if unit.pixel_perfect && size.0 > 0 && size.1 > 0 {
                let resolution = pixel_perfect(size, request.size(), mode);
                module.check(size.0, size.1, &Settings { resolution, ..*settings })?;
            } else {
                module.check(size.0, size.1, settings)?;
            }
            check_between(size, request.largest(), mode)?;
            sizes.push(size);
        }
        if sizes.is_empty() && job.method() == "txt2img" {
            return Err(Error::invalid(
                "image: there is none, and txt2img has none either; give one to take a hint of",
            ));
        }
        if let Some(mask) = unit.mask() {
            let mask = mask.image(call)?;
            let other = sizes.iter().find(|size| **size != (mask.width, mask.height));
            if let Some((width, height)) = other {
                let text = format!(
                    "mask: it is {}x{}, the image {width}x{height}; give one as large as the image",
                    mask.width, mask.height
                );
                return Err(Error::invalid(text));
            }
            if sizes.is_empty() {
                return Err(Error::invalid("mask: there is no image that it is of; give that, too"));
            }
        }
        if let Some(mask) = unit.effective_region_mask {
            let mask = mask.image(call)?;
            if mask.width.checked_mul(mask.height).is_none_or(|pixels| pixels > MOST_OF_REGION) {
                let text = format!(
                    "effective_region_mask: {}x{} is too large; give one of no more than {MOST_OF_REGION} pixels",
                    mask.width, mask.height
                );
                return Err(Error::invalid(text));
            }
        }
        if let Some(told) = &unit.advanced_weighting {
            let needed = network.count();
            if told.len() < needed {
                let text =
                    format!("advanced_weighting has {} numbers; this model has {needed} places", told.len());
                return Err(Error::invalid(text));
            }
        }
        Ok(network)
    }
}

/// The error with the unit that it is of; what a service said stays as it is.
fn in_unit(index: usize, error: &Error) -> Error {
    let text = if error.text.is_empty() { String::new() } else { format!("units/{index}: {}", error.text) };
    Error::new(error.status, text)
}

impl JobPlan for ControlNet {
    fn plan(job: &Job<'_>, plan: &Plan<'_>) -> Result<bool> {
        if job.method() == PREPROCESS {
            return preprocess_method::plan(job);
        }
        let units = Planned::all(job)?;
        if units.is_empty() {
            return Ok(false);
        }
        let (request, model) = (Request::of(job)?, job.call.model()?);
        let (mut adds, mut is_looked_up) = (false, false);
        for planned in &units {
            let mut checked = || {
                let network = planned.check(job, &model, &request)?;
                if let Some(adapter) = &network.ip_adapter {
                    is_looked_up = true;
                    return adapter.needs(&job.call, plan, planned.file);
                }
                adds = true;
                needs(plan, planned.file, &network, &model, &request, job.batch())
            };
            checked().map_err(|error| in_unit(planned.index, &error))?;
        }
        let start = units.iter().map(|planned| planned.unit.guidance_start).fold(1.0, f64::min);
        if adds {
            plan.stage_within(LATENTD_CONTROL_RESIDUALS, start, 1.0)?;
        }
        if is_looked_up {
            plan.stage(LATENTD_ATTENTION)?;
        }
        if job.method() != "txt2img" {
            plan.stage(LATENTD_PASS_BEGIN)?;
        }
        plan.stage(LATENTD_INFOTEXT_WRITE)?;
        Ok(true)
    }
}

/// The memory of a unit's network.
fn needs(
    plan: &Plan<'_>,
    file: File,
    network: &Network,
    model: &Model,
    request: &Request,
    batch: usize,
) -> Result<()> {
    let (width, height) = request.largest();
    let image = [1, network.colours, height, width];
    if network.kind == Kind::Adapter {
        return plan.network(file, FEATURES, &[("image", &image)], 1.0);
    }
    let (rows, wide, high) =
        (2 * batch.max(1), width / model.latent_down.max(1), height / model.latent_down.max(1));
    let inputs: [(&str, &[usize]); 4] = [
        ("x", &[rows, model.latent_channels, high, wide]),
        ("timestep", &[rows]),
        ("context", &[rows, TOKENS, model.context_width]),
        ("hint", &[1, network.hint_channels, high, wide]),
    ];
    let need = |part, inputs: &[(&str, &[usize])], runs| {
        if network.on_base {
            plan.network_on_base(file, part, inputs, runs)
        } else {
            plan.network(file, part, inputs, runs)
        }
    };
    need(HINT, &[("image", &image)], 1.0)?;
    need(RESIDUALS, &inputs, f64::from(request.steps.max(1)))
}

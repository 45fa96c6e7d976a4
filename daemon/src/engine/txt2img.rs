//! Runs one `txt2img` job, from its request to its encoded result.

use std::time::Instant;

use latentd_client::protocol::{Timings, Txt2ImgResult};
use latentd_models::pipeline::{self, Output, Txt2Img};

use super::hooks::JobHooks;
use super::output;
use super::plan::Plan;
use super::studio::Studio;
use crate::clock;
use crate::error::{Class, Error, Result};
use crate::jobs::{Job, Jobs};
use crate::residency::Loaded;

/// Seeds that are drawn stay in the range that A1111 draws from.
const DRAWN_SEEDS: u64 = 1 << 32;

/// Draws and gives the result as MessagePack.
pub(super) fn run(studio: &Studio, jobs: &Jobs, job: &Job) -> Result<Vec<u8>> {
    let started = Instant::now();
    let mut timings = Timings { queue_s: (clock::now() - job.created_at).max(0.0), ..Default::default() };
    let params = &job.request;
    let plan = Plan::new(params, studio.plan_limits)?;
    let seed = match u64::try_from(params.seed) {
        Ok(seed) => seed,
        Err(_) => crate::random::u64()? % DRAWN_SEEDS,
    };

    jobs.progress(job, "loading", (0, params.steps.saturating_mul(params.n_iter)), None);
    let item = studio.checkpoint(params.checkpoint.as_deref())?;
    let notice = studio.built_in_notice(params.checkpoint.as_deref(), &item);
    let precision = plan.precision.unwrap_or(studio.precision);
    let loaded = studio.residency.acquire(&studio.library, &item, precision, &studio.pool)?;
    let (width, height) = plan.size(loaded.model.native_size())?;
    timings.load_s = started.elapsed().as_secs_f64();

    let request = Txt2Img {
        prompt: params.prompt.clone(),
        negative_prompt: params.negative_prompt.clone(),
        seed,
        steps: params.steps as usize,
        cfg_scale: params.cfg_scale,
        width,
        height,
        sampler: plan.sampler,
        schedule: plan.schedule,
        batch_size: params.batch_size as usize,
        n_iter: params.n_iter as usize,
        clip_skip: params.clip_skip as usize,
        rng: plan.rng,
        pad_cond_uncond: params.pad_cond_uncond,
        memory_limit: Some(studio.residency.budget().saturating_sub(studio.residency.bytes())),
    };
    let mut hooks = JobHooks::new(jobs, job, timings);
    let drawn = studio.pool.install(|| pipeline::txt2img(&loaded.model, &request, &mut hooks));
    let drawn = drawn?;
    let mut timings = hooks.timings;

    let dir = plan.dir.clone().unwrap_or_else(|| studio.outputs_dir.clone());
    let images = drawn
        .into_iter()
        .enumerate()
        .map(|(index, drawn)| {
            let infotext = infotext(&drawn, &loaded)?;
            output::pack(drawn.image, drawn.seed, infotext, plan.format, &dir, &job.id, index)
        })
        .collect::<Result<Vec<_>>>()?;
    timings.total_s = started.elapsed().as_secs_f64();
    let result = Txt2ImgResult {
        images,
        job: job.id.clone(),
        precision: loaded.model.precision().name().to_owned(),
        timings,
        notices: notice.into_iter().collect(),
    };
    rmp_serde::to_vec_named(&result)
        .map_err(|error| Error::internal(format!("the result cannot be encoded: {error}")))
}

/// The picture's text with what only the library knows: which file drew it.
fn infotext(drawn: &Output, loaded: &Loaded) -> Result<String> {
    let sha256 = loaded.sha256.wait().map_err(|error| Error::new(Class::Model, error))?;
    let mut infotext = drawn.infotext.clone();
    infotext.push("Model hash", sha256.get(..10).unwrap_or(&sha256));
    infotext.push("Model", &loaded.item.name);
    infotext.push("Version", concat!("latentd v", env!("CARGO_PKG_VERSION")));
    Ok(infotext.to_string())
}

//! controlnet: pictures that say where. The host runs the networks and adds what comes of them; what is here says which, when, and
//! how much, in sd-webui-controlnet's words.

mod preprocess_method;
mod preprocessing;
mod preprocessor_engine;
pub mod preprocessors;

use latentd_plugin_api::{Job, JobPlan, Plan, Plugin, Result, export};

/// What a job's units are run with.
struct ControlNet;

export!(ControlNet, "../controlnet.toml", [JobPlan, Methods], engines: [Preprocessor]);

impl Plugin for ControlNet {
    fn new(_job: &Job<'_>) -> Result<Self> {
        Ok(Self)
    }
}

impl JobPlan for ControlNet {
    fn plan(job: &Job<'_>, _plan: &Plan<'_>) -> Result<bool> {
        if job.method() == preprocess_method::PREPROCESS {
            return preprocess_method::plan(job);
        }
        Ok(false)
    }
}

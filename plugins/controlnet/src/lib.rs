//! controlnet: pictures that say where. The host runs the networks and adds what comes of them; what is here says which, when, and
//! how much, in sd-webui-controlnet's words.

pub mod preprocessors;

use latentd_plugin_api::{Job, Plugin, Result, export};

/// What a job's units are run with.
struct ControlNet;

export!(ControlNet, "../controlnet.toml", []);

impl Plugin for ControlNet {
    fn new(_job: &Job<'_>) -> Result<Self> {
        Ok(Self)
    }
}

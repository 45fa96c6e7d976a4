//! controlnet: pictures that say where. The host runs the networks and adds what comes of them; what is here says which, when, and
//! how much, in sd-webui-controlnet's words.

mod hints;
mod infotext;
mod ip_adapter;
mod network;
mod pillow;
mod plan;
mod preprocess_method;
mod preprocessing;
mod preprocessor_engine;
pub mod preprocessors;
mod running;
mod schedule;
mod units;

use latentd_plugin_api::export;

use running::ControlNet;

export!(
    ControlNet,
    "../controlnet.toml",
    [JobPlan, PassBegin, Attention, ControlResiduals, InfotextWrite, InfotextParse, Methods],
    engines: [Preprocessor]
);

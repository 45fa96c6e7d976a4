//! A request's regions: their masks as the pipeline takes them, and what pictures tell of them.

use std::sync::Arc;

use latentd_client::protocol::{ImageIn, RegionParams};
use latentd_models::pipeline::RegionPrompt;
use latentd_models::prompt::Wording;

use super::given::{Given, Sources};
use super::notices::Notices;
use super::unapplied;
use crate::error::{Class, Result};

/// The regions of a request for pictures of a size in pixels, as they are drawn and as they are told.
pub(super) fn resolve(
    regions: Vec<RegionParams>,
    (width, height): (usize, usize),
    sources: &Sources,
    notices: &mut Notices,
) -> Result<(Vec<RegionPrompt>, Vec<RegionParams>)> {
    let mut networks = vec![];
    let mut all = (vec![], vec![]);
    for (place, RegionParams { mask, prompt, weight }) in regions.into_iter().enumerate() {
        let field = format!("regions[{place}].mask");
        let given = Given::new(&field, mask, sources)?;
        let mask = given.decoded(&field, sources, |picture| picture.coverage(height / 8, width / 8))?;
        let wording = Wording::of_prompt(&prompt);
        let told = ImageIn::blob(given.keep(sources));
        all.1.push(RegionParams { mask: told, prompt: wording.text.clone(), weight });
        all.0.push(RegionPrompt { prompt: wording.text, mask: Arc::new(mask), weight });
        networks.extend(wording.networks);
    }
    if let Some(text) = unapplied::region_networks(networks.iter()) {
        notices.not_applied(Class::Unsupported, text)?;
    }
    Ok(all)
}

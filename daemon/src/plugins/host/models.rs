//! What the job's model is made of.

use latentd_models::files::Prediction;
use latentd_models::model::ModelShape;
use latentd_models::networks::unet::Block;
use latentd_plugin_api::abi::{
    LATENTD_INPUT, LATENTD_MIDDLE, LATENTD_OUTPUT, LATENTD_PREDICTS_NOISE, LATENTD_PREDICTS_VELOCITY,
    LATENTD_UNSUPPORTED, latentd_call, latentd_list, latentd_model_describe, latentd_model_info,
    latentd_model_site, latentd_status,
};

use super::serving::{Failure, give_back, misuse, serve, text};
use crate::plugins::call::{Call, State};

/// Pixels to a latent.
const LATENT_DOWN: u32 = 8;

pub(super) static MODELS: latentd_model_describe = latentd_model_describe {
    size: size_of::<latentd_model_describe>() as u32,
    reserved: 0,
    describe: Some(describe),
};

unsafe extern "C" fn describe(call: *mut latentd_call, info: *mut latentd_model_info) -> latentd_status {
    let work = |call: &Call<'_>, state: &mut State<'_>| {
        if info.is_null() {
            return misuse("info is null");
        }
        let Some(model) = call.job.model() else {
            return Err(Failure(LATENTD_UNSUPPORTED, "there is no model here".to_owned()));
        };
        let ModelShape { facts, unet } = &*model;
        let sites = sites(&model);
        let items = sites.as_ptr().cast();
        let told = latentd_model_info {
            size: 0,
            prediction: match facts.prediction {
                Prediction::Epsilon => LATENTD_PREDICTS_NOISE,
                Prediction::Velocity => LATENTD_PREDICTS_VELOCITY,
            },
            family: text(facts.family.name),
            latent_channels: facts.family.latent_channels as u32,
            in_channels: unet.in_channels as u32,
            latent_down: LATENT_DOWN,
            context_width: unet.context_width as u32,
            pooled_width: 0,
            skips: 1 + unet.input_blocks.len() as u32,
            latent_scale: facts.family.latent_scale,
            sites: latentd_list {
                items,
                count: sites.len() as u32,
                stride: size_of::<latentd_model_site>() as u32,
            },
            turn: call.job.turn(),
            reserved: 0,
        };
        state.lent.push(Box::new(sites));
        // SAFETY: the plugin lends a struct that begins with its size.
        unsafe { give_back(&told, info) };
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

/// The blocks of the UNet, in the order in which they run.
fn sites(model: &ModelShape) -> Vec<latentd_model_site> {
    let unet = &model.unet;
    let site =
        |part, index: usize, (channels, skip): (usize, usize), down, (depth, width): (usize, usize)| {
            latentd_model_site {
                part,
                index: index as u32,
                channels: channels as u32,
                skip_channels: skip as u32,
                down,
                attentions: depth as u32,
                heads: if depth == 0 { 0 } else { unet.heads as u32 },
                width: if depth == 0 { 0 } else { width as u32 },
            }
        };
    let (mut channels, mut down) = (unet.channels, 1);
    let mut sites = vec![site(LATENTD_INPUT, 0, (channels, 0), down, (0, 0))];
    let mut skips = vec![(channels, down)];
    for (index, block) in unet.input_blocks.iter().enumerate() {
        let depth = match block {
            Block::Residual { channels: out, depth, .. } => {
                channels = *out;
                *depth
            }
            Block::Downsample => {
                down *= 2;
                0
            }
        };
        sites.push(site(LATENTD_INPUT, index + 1, (channels, 0), down, (depth, channels)));
        skips.push((channels, down));
    }
    let depth = unet.middle_depth.unwrap_or_default();
    sites.push(site(LATENTD_MIDDLE, 0, (channels, 0), down, (depth, channels)));
    for (index, block) in unet.output_blocks.iter().enumerate() {
        let Block::Residual { channels: out, depth, .. } = block else { continue };
        let (skip, down) = skips.pop().unwrap_or_default();
        sites.push(site(LATENTD_OUTPUT, index, (channels, skip), down, (*depth, *out)));
        channels = *out;
    }
    sites
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sites_are_those_of_sd_1() {
        let sites = sites(&ModelShape::sd15());
        assert_eq!(sites.len(), 12 + 1 + 12);
        let told = |part, index: u32| {
            let site = sites.iter().find(|site| (site.part, site.index) == (part, index)).expect("a site");
            (site.channels, site.skip_channels, site.down, site.attentions, site.heads, site.width)
        };
        assert_eq!(told(LATENTD_INPUT, 0), (320, 0, 1, 0, 0, 0));
        assert_eq!(told(LATENTD_INPUT, 3), (320, 0, 2, 0, 0, 0));
        assert_eq!(told(LATENTD_INPUT, 4), (640, 0, 2, 1, 8, 640));
        assert_eq!(told(LATENTD_MIDDLE, 0), (1280, 0, 8, 1, 8, 1280));
        assert_eq!(told(LATENTD_OUTPUT, 2), (1280, 1280, 8, 0, 0, 0));
        assert_eq!(told(LATENTD_OUTPUT, 3), (1280, 1280, 4, 1, 8, 1280));
        assert_eq!(told(LATENTD_OUTPUT, 9), (640, 320, 1, 1, 8, 320));
        assert_eq!(told(LATENTD_OUTPUT, 11), (320, 320, 1, 1, 8, 320));
    }
}

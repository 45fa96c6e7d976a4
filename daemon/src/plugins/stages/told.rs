//! What stages are told, as the ABI has it: pictures, passes, evaluations and their rows.

use latentd_models::Tensor;
use latentd_models::files::Prediction;
use latentd_models::networks::unet_sites::{Site, SitePart};
use latentd_models::pipeline::{Evaluation, PassBegin, PassKind, Role};
use latentd_models::prompt::Conditioning;
use latentd_plugin_api::abi::{
    LATENTD_BASE, LATENTD_COND, LATENTD_HIRES, LATENTD_INPUT, LATENTD_INPUT_STORED, LATENTD_MIDDLE,
    LATENTD_OTHER, LATENTD_OUTPUT, LATENTD_PREDICTS_NOISE, LATENTD_PREDICTS_VELOCITY, LATENTD_UNCOND,
    latentd_eval, latentd_list, latentd_pass, latentd_picture, latentd_region, latentd_row,
};

use crate::plugins::host::text;
use crate::plugins::objects::Content;

pub(super) fn list<T>(items: &[T]) -> latentd_list {
    latentd_list { items: items.as_ptr().cast(), count: items.len() as u32, stride: size_of::<T>() as u32 }
}

fn kind(pass: PassKind) -> u32 {
    match pass {
        PassKind::Base => LATENTD_BASE,
        PassKind::Hires => LATENTD_HIRES,
    }
}

/// A place in the UNet, as part and index.
pub(in crate::plugins) fn place(site: Site) -> (u32, u32) {
    let part = match site.part {
        SitePart::Input => LATENTD_INPUT,
        SitePart::InputStored => LATENTD_INPUT_STORED,
        SitePart::Middle => LATENTD_MIDDLE,
        SitePart::Output => LATENTD_OUTPUT,
    };
    (part, site.index as u32)
}

/// No part of anything.
const NOWHERE: latentd_region = latentd_region { x: 0, y: 0, w: 0, h: 0, canvas_w: 0, canvas_h: 0 };

fn picture(image: usize, seed: u64, pixels: u64) -> latentd_picture {
    latentd_picture { image: image as u32, reserved: 0, seed, pixels, mask: 0, crop: NOWHERE, unfilled: 0 }
}

/// Pictures from `first` on; their pixels where there are handles.
pub(in crate::plugins) fn pictures(first: usize, seeds: &[u64], pixels: &[u64]) -> Vec<latentd_picture> {
    let picture = |(index, seed): (usize, &u64)| {
        picture(first + index, *seed, pixels.get(index).copied().unwrap_or_default())
    };
    seeds.iter().enumerate().map(picture).collect()
}

/// Pictures of these places and seeds.
pub(super) fn with_pixels(whose: &[(usize, u64)], pixels: &[u64]) -> Vec<latentd_picture> {
    let picture = |((image, seed), pixels): (&(usize, u64), &u64)| picture(*image, *seed, *pixels);
    whose.iter().zip(pixels).map(picture).collect()
}

/// A pass, if there is one, with its pictures.
pub(in crate::plugins) fn pass(pass: Option<&PassBegin>, pictures: &[latentd_picture]) -> latentd_pass {
    let side = |side: Option<usize>| side.map_or(0, |side| side as u32);
    let hires = pass.and_then(|pass| pass.hires);
    latentd_pass {
        size: size_of::<latentd_pass>() as u32,
        kind: pass.map_or(0, |pass| kind(pass.pass)),
        index: side(pass.map(|pass| pass.index)),
        depth: pass.map_or(0, |pass| pass.depth),
        width: side(pass.map(|pass| pass.size.0)),
        height: side(pass.map(|pass| pass.size.1)),
        pictures: list(pictures),
        steps: side(pass.map(|pass| pass.steps)),
        has_init: u32::from(pass.is_some_and(|pass| pass.strength.is_some())),
        base_w: side(pass.map(|pass| pass.base.0)),
        base_h: side(pass.map(|pass| pass.base.1)),
        hires_w: side(hires.map(|(width, _)| width)),
        hires_h: side(hires.map(|(_, height)| height)),
        denoising_strength: pass.and_then(|pass| pass.strength).unwrap_or(1.0),
    }
}

/// An evaluation's rows; `masks` stand for those that have one, in their order.
pub(in crate::plugins) fn rows(evaluation: &Evaluation, masks: &[u64]) -> Vec<latentd_row> {
    let mut masks = masks.iter().copied();
    let row = |row: &latentd_models::pipeline::Row| latentd_row {
        image: row.image as u32,
        branch: row.branch as u32,
        role: match row.role {
            Role::Cond => LATENTD_COND,
            Role::Uncond => LATENTD_UNCOND,
            Role::Other => LATENTD_OTHER,
        },
        reserved: 0,
        seed: row.seed,
        weight: row.weight,
        tag: text(&row.tag),
        region: latentd_region {
            x: row.region.x as i32,
            y: row.region.y as i32,
            w: row.region.width as u32,
            h: row.region.height as u32,
            canvas_w: row.region.canvas_width as u32,
            canvas_h: row.region.canvas_height as u32,
        },
        mask: row.mask.as_ref().and_then(|_| masks.next()).unwrap_or_default(),
        context: 0,
        pooled: 0,
    };
    evaluation.rows.iter().map(row).collect()
}

/// What the masks of rows are, in their order.
pub(in crate::plugins) fn masks(evaluation: &Evaluation) -> latentd_models::Result<Vec<Content>> {
    let masks = evaluation.rows.iter().filter_map(|row| row.mask.as_deref());
    let as_image = |mask: &Tensor| {
        let (height, width) = (mask.dim(0), mask.dim(1));
        mask.clone().reshaped([1, 1, height, width]).map(Content::Tensor)
    };
    masks.map(as_image).collect()
}

/// What rows are told: two each, of which the second is nothing where a model has no such.
pub(in crate::plugins) fn contexts(evaluation: &Evaluation) -> impl Iterator<Item = Content> {
    evaluation.rows.iter().flat_map(|row| {
        let Conditioning { tokens, pooled } = &*row.conditioning;
        [tokens.clone(), pooled.clone().unwrap_or_else(|| Tensor::full(0.0, [1, 1]))].map(Content::Tensor)
    })
}

/// Has rows tell it; `handles` stand for [`contexts`].
pub(in crate::plugins) fn tell_contexts(rows: &mut [latentd_row], evaluation: &Evaluation, handles: &[u64]) {
    let has_pooled = evaluation.rows.iter().any(|row| row.conditioning.pooled.is_some());
    for (row, [context, pooled]) in rows.iter_mut().zip(handles.as_chunks().0) {
        row.context = *context;
        row.pooled = if has_pooled { *pooled } else { 0 };
    }
}

pub(in crate::plugins) fn told(evaluation: &Evaluation, rows: &[latentd_row]) -> latentd_eval {
    latentd_eval {
        size: size_of::<latentd_eval>() as u32,
        depth: evaluation.depth,
        rows: list(rows),
        pass_kind: kind(evaluation.pass),
        pass: evaluation.pass_index as u32,
        step: evaluation.step as u32,
        steps: evaluation.steps as u32,
        call: evaluation.call as u32,
        prediction: match evaluation.prediction {
            Prediction::Epsilon => LATENTD_PREDICTS_NOISE,
            Prediction::Velocity => LATENTD_PREDICTS_VELOCITY,
        },
        sigma: evaluation.sigma,
        timestep: f64::from(evaluation.timestep),
        grid_w: evaluation.latents.1 as u32,
        grid_h: evaluation.latents.0 as u32,
        group: 0,
        groups: 1,
    }
}

//! What plugins add within the UNet.

use latentd_models::networks::unet_residuals::ResidualPlace;
use latentd_models::pipeline::{Held, Residual};
use latentd_plugin_api::abi::{
    LATENTD_AT_ENCODER, LATENTD_AT_MIDDLE, LATENTD_AT_SKIP, LATENTD_CONTROL_RESIDUALS, LATENTD_INVALID,
    latentd_call, latentd_residual, latentd_status,
};

use super::numbers::{mask, tensor};
use super::serving::{Failure, Served, misuse, objects, reserve, row_numbers, serve, taken};
use crate::plugins::call::{Adding, Call, State};
use crate::plugins::objects::Objects;

/// Residuals that a plugin may add in one evaluation.
const MOST_RESIDUALS: usize = 1024;

pub(in crate::plugins) unsafe extern "C" fn add_residual(
    call: *mut latentd_call,
    residual: *const latentd_residual,
) -> latentd_status {
    let work = |call: &Call<'_>, state: &mut State<'_>| {
        let Some(adding) = call.at_hand.adding else {
            return misuse(format!("residuals are added in {LATENTD_CONTROL_RESIDUALS}"));
        };
        // SAFETY: the plugin lends a struct that begins with its size.
        let Some(given) = (unsafe { taken(residual) }) else { return misuse("the residual is null") };
        let count = adding.residuals.borrow().len();
        if count >= MOST_RESIDUALS {
            return wrong(format!("more than {MOST_RESIDUALS} residuals"));
        }
        // SAFETY: the plugin lends as many numbers as it says.
        let rows = unsafe { row_numbers(given.rows, given.row_count, adding.rows) };
        let mut objects = objects(state)?;
        let read = rows.and_then(|rows| read(call.plugin, &given, rows, adding, &mut objects));
        let read = read.map_err(|Failure(status, text)| Failure(status, format!("residual {count}: {text}")));
        let Some(mut residual) = read? else { return Ok(()) };
        // What it is, and what it is a part of the sum of.
        let sums = residual.tensor.values().len() / residual.tensor.dim(0).max(1) * adding.rows;
        let bytes = size_of_val(residual.tensor.values()) + size_of::<f32>() * sums;
        residual.held = Held::of(reserve(call, bytes)?);
        adding.residuals.borrow_mut().push(residual);
        Ok(())
    };
    // SAFETY: the plugin names a call.
    unsafe { serve(call, work) }
}

fn wrong<T>(text: impl Into<String>) -> Served<T> {
    Err(Failure(LATENTD_INVALID, text.into()))
}

/// `None` if it is nothing.
fn read(
    plugin: &str,
    given: &latentd_residual,
    rows: Option<Vec<usize>>,
    adding: &Adding,
    objects: &mut Objects,
) -> Served<Option<Residual>> {
    let index = given.index as usize;
    let place = match given.at {
        LATENTD_AT_ENCODER => ResidualPlace::Encoder(index),
        LATENTD_AT_SKIP => ResidualPlace::Skip(index),
        LATENTD_AT_MIDDLE if index == 0 => ResidualPlace::Middle,
        LATENTD_AT_MIDDLE => return wrong(format!("the middle has no index {index}")),
        other => return wrong(format!("at is {other}, none of AT_ENCODER, AT_SKIP and AT_MIDDLE")),
    };
    let Some([channels, height, width]) = adding.sizes.at(place) else {
        return wrong(format!("there is no {place}; this model has {}", adding.sizes.outputs()));
    };
    let scale = given.scale;
    if !scale.is_finite() || scale.abs() > 1e6 {
        return wrong(format!("scale is {scale}"));
    }
    let tensor = tensor(objects.readable_content(given.tensor)?, "the tensor")?;
    let count = rows.as_ref().map_or(adding.rows, Vec::len);
    let fits = matches!(*tensor.dims(), [n, c, h, w] if (n == 1 || n == count) && [c, h, w] == [channels, height, width]);
    if !fits {
        let dims = tensor.dims();
        return wrong(format!(
            "{dims:?} for {place}; (1 or {count}, {channels}, {height}, {width}) is needed"
        ));
    }
    let mask = if given.mask == 0 { None } else { Some(mask(objects.readable_content(given.mask)?)?) };
    let residual = Residual {
        owner: plugin.to_owned(),
        place,
        rows,
        tensor,
        mask,
        scale: scale as f32,
        held: Held::default(),
    };
    Ok((residual.scale != 0.0).then_some(residual))
}

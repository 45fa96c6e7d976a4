//! Inputs of networks that are those of the evaluation that a stage is of, row by row.

use latentd_models::Tensor;
use latentd_models::networks::standalone::{Entry, Port, Side};
use latentd_models::pipeline::Row;
use latentd_plugin_api::abi::{
    LATENTD_CONTROL_RESIDUALS, LATENTD_DENOISE_WRAP, LATENTD_FAILED, LATENTD_INVALID, LATENTD_UNSUPPORTED,
    latentd_network_run,
};

use super::serving::{Failure, Served, row_numbers};
use crate::plugins::call::{Call, Evaluated};

/// Tensors by the names of the inputs that they are.
pub(super) type Inputs = Vec<(String, Tensor)>;

/// Rows that are run together.
pub(super) struct Group {
    /// Their places among those that are asked for; `None`: it is all there is.
    places: Option<Vec<usize>>,
    pub inputs: Inputs,
}

/// What an evaluation has for networks.
const OF_EVALUATIONS: [&str; 4] = ["x", "timestep", "context", "pooled"];

/// The inputs of a run: those given, with those of the evaluation where that is asked for.
///
/// # Safety
/// The rows of `run` are as it says.
pub(super) unsafe fn in_groups(
    call: &Call<'_>,
    run: &latentd_network_run,
    entry: &Entry,
    given: Inputs,
) -> Served<Vec<Group>> {
    if run.of_stage == 0 {
        return Ok(vec![Group { places: None, inputs: given }]);
    }
    let Some(evaluated) = call.at_hand.evaluated else {
        let text = format!(
            "no evaluation is at hand here: inputs are left out in {LATENTD_DENOISE_WRAP} and {LATENTD_CONTROL_RESIDUALS}"
        );
        return Err(Failure(LATENTD_UNSUPPORTED, text));
    };
    let all = evaluated.evaluation.rows.len();
    // SAFETY: as the caller says.
    let rows = unsafe { row_numbers(run.rows, run.row_count, all) }?;
    let rows = rows.unwrap_or_else(|| (0..all).collect());
    let is_left_out = |port: &&Port| {
        OF_EVALUATIONS.contains(&port.name) && !given.iter().any(|(name, _)| name == port.name)
    };
    let left_out: Vec<&Port> = entry.inputs.iter().filter(is_left_out).collect();
    let Some(per_row) = left_out.iter().find_map(|port| port.sides.first()) else {
        return Ok(vec![Group { places: None, inputs: given }]);
    };
    for (name, tensor) in &given {
        let is_per_row = entry.inputs.iter().any(|port| port.name == name && is_of(port, per_row));
        if is_per_row && tensor.dims().first() != Some(&rows.len()) {
            let (dims, rows) = (tensor.dims(), rows.len());
            return invalid(format!("input '{name}': {dims:?}; {rows} rows are run"));
        }
    }
    let tells = left_out.iter().any(|port| port.name == "context");
    groups(evaluated, &rows, tells)?
        .into_iter()
        .map(|places| {
            let mut inputs = vec![];
            for (name, tensor) in &given {
                let is_per_row = entry.inputs.iter().any(|port| port.name == name && is_of(port, per_row));
                inputs
                    .push((name.clone(), if is_per_row { picked(tensor, &places)? } else { tensor.clone() }));
            }
            let of_places: Vec<usize> = places.iter().filter_map(|place| rows.get(*place)).copied().collect();
            for port in &left_out {
                inputs.push((port.name.to_owned(), of_rows(evaluated, port.name, &of_places)?));
            }
            Ok(Group { places: Some(places), inputs })
        })
        .collect()
}

/// Whether a port has an entry per row.
fn is_of(port: &Port, per_row: &Side) -> bool {
    port.sides.first() == Some(per_row)
}

fn row<'a>(evaluated: &'a Evaluated<'_>, index: usize) -> Served<&'a Row> {
    let found = evaluated.evaluation.rows.get(index);
    found.ok_or_else(|| Failure(LATENTD_FAILED, format!("the evaluation has no row {index}")))
}

/// Places of rows that are told as many tokens, each with others like it; all in one if that does not matter.
fn groups(evaluated: &Evaluated<'_>, rows: &[usize], tells: bool) -> Served<Vec<Vec<usize>>> {
    let mut groups: Vec<(usize, Vec<usize>)> = vec![];
    for (place, index) in rows.iter().enumerate() {
        let tokens = if tells { row(evaluated, *index)?.conditioning.tokens.dim(1) } else { 0 };
        match groups.iter_mut().find(|(own, _)| *own == tokens) {
            Some((_, group)) => group.push(place),
            None => groups.push((tokens, vec![place])),
        }
    }
    Ok(groups.into_iter().map(|(_, group)| group).collect())
}

/// What rows of the evaluation have of a name.
fn of_rows(evaluated: &Evaluated<'_>, name: &str, rows: &[usize]) -> Served<Tensor> {
    let Evaluated { evaluation, latents, scale } = evaluated;
    match name {
        "x" => Ok(picked(latents, rows)?.scaled(*scale)),
        "timestep" => Ok(Tensor::full(evaluation.timestep, [rows.len()])),
        _ => {
            let of_row = |index: &usize| {
                let conditioning = &row(evaluated, *index)?.conditioning;
                let told =
                    if name == "context" { Some(&conditioning.tokens) } else { conditioning.pooled.as_ref() };
                told.ok_or_else(|| Failure(LATENTD_INVALID, format!("the model of this pass has no {name}")))
            };
            joined(&rows.iter().map(of_row).collect::<Served<Vec<_>>>()?)
        }
    }
}

/// Entries of a tensor.
fn picked(tensor: &Tensor, places: &[usize]) -> Served<Tensor> {
    let entries = places.iter().map(|place| tensor.narrow(0, *place, 1));
    let entries = entries.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    joined(&entries.iter().collect::<Vec<_>>())
}

fn joined(tensors: &[&Tensor]) -> Served<Tensor> {
    Tensor::cat(tensors, 0).map_err(failed)
}

/// What came of all groups, each output with its rows in the order in which they are asked for.
pub(super) fn together(groups: Vec<(Group, Vec<Tensor>)>) -> Served<Vec<Tensor>> {
    if groups.len() <= 1 {
        return Ok(groups.into_iter().next().map(|(_, made)| made).unwrap_or_default());
    }
    let outputs = groups.iter().map(|(_, made)| made.len()).min().unwrap_or_default();
    (0..outputs)
        .map(|output| {
            let mut entries: Vec<(usize, Tensor)> = vec![];
            for (group, made) in &groups {
                let (Some(places), Some(tensor)) = (&group.places, made.get(output)) else { continue };
                if tensor.dims().first() != Some(&places.len()) {
                    let text =
                        format!("output {output} is no row's: run rows of other contexts by themselves");
                    return Err(Failure(LATENTD_UNSUPPORTED, text));
                }
                for (index, place) in places.iter().enumerate() {
                    entries.push((*place, tensor.narrow(0, index, 1).map_err(failed)?));
                }
            }
            entries.sort_by_key(|(place, _)| *place);
            joined(&entries.iter().map(|(_, entry)| entry).collect::<Vec<_>>())
        })
        .collect()
}

fn invalid<T>(text: String) -> Served<T> {
    Err(Failure(LATENTD_INVALID, text))
}

fn failed(error: latentd_models::Error) -> Failure {
    error.into()
}

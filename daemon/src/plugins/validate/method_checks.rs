//! What is looked at in a plugin's own methods: that each answers whatever its schema allows, in time, and gives up in peace.

use std::sync::Arc;

use latentd_client::protocol::PluginParams;

use serde_json::Value as Json;

use super::bench::{Bench, Looked, Ready, may, must};
use super::inputs::Random;
use super::outcome::Outcome;
use super::schema;
use crate::error::{Class, Error, Result};
use crate::plugins::methods::{Method, Returned};
use crate::plugins::parameters;

/// Parameters that are made up, and how often it is tried to find some.
const PARAMS: usize = 48;
const TRIES: usize = 16;
/// Allocations of a call that are refused, each in a call of its own.
const REFUSALS: u32 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    Usual,
    Params,
    Cancelled,
    NoMemory,
}

/// All of them, by their names.
pub(super) const ALL: [(&str, Check); 4] = [
    ("usual", Check::Usual),
    ("params", Check::Params),
    ("cancelled", Check::Cancelled),
    ("no-memory", Check::NoMemory),
];

/// Does one of the method in this place of the manifest.
pub(super) fn run(ready: &Ready, place: usize, check: Check, random: &mut Random) -> Outcome {
    look(ready, place, check, random).err().unwrap_or(Outcome::Ok)
}

fn look(ready: &Ready, place: usize, check: Check, random: &mut Random) -> Looked {
    let call = |params: &PluginParams, job: &Bench| Of { ready, place }.call(params, job);
    let usual = usual_params(ready, place, random);
    let usual =
        usual.ok_or_else(|| Outcome::Skipped("no parameters were found that its schema allows".to_owned()));
    match check {
        Check::Usual => {
            let usual = usual?;
            must(call(&usual, &Bench::new())?, &shown(&usual)).map(drop)
        }
        Check::Params => (0..PARAMS).try_for_each(|_| {
            let Some(params) = params(ready, place, random) else { return Ok(()) };
            ready.at(&shown(&params));
            may(call(&params, &Bench::new())?, &shown(&params)).map(drop)
        }),
        Check::Cancelled => {
            let job = Bench::new();
            job.cancel();
            match call(&usual?, &job)? {
                Err(Error { class: Class::Cancelled, .. }) => Ok(()),
                answer => must(answer, "the job was cancelled").map(drop),
            }
        }
        Check::NoMemory => {
            let usual = usual?;
            (0..REFUSALS).try_for_each(|count| {
                let job = Bench::new();
                job.grant(count);
                match call(&usual, &job)? {
                    Err(_) if job.refused() > 0 => Ok(()),
                    answer => {
                        must(answer, &format!("after {count} allocations there was no memory")).map(drop)
                    }
                }
            })
        }
    }
}

/// Some that its schema allows.
fn params(ready: &Ready, place: usize, random: &mut Random) -> Option<PluginParams> {
    let row = ready.plugin.manifest.methods.get(place)?;
    match &row.params {
        None => Some(PluginParams::default()),
        Some(schema) => (0..TRIES).find_map(|_| schema::params(schema, random)).map(PluginParams::from_json),
    }
}

/// What it must be given, with defaults beside.
fn usual_params(ready: &Ready, place: usize, random: &mut Random) -> Option<PluginParams> {
    let made = params(ready, place, random)?;
    let schema = ready.plugin.manifest.methods.get(place)?.params.as_ref();
    let required = schema.and_then(|schema| schema.get("required")).and_then(Json::as_array);
    let is_required = |name: &String| required.is_some_and(|all| all.iter().any(|each| each == name));
    let mut least = made.clone();
    least.0.retain(|name, _| is_required(name));
    let mut whole = Json::Object(least.to_json().unwrap_or_default());
    let is_valid = schema.is_none_or(|schema| {
        parameters::with_defaults(schema, &mut whole).is_ok() && parameters::validate(schema, &whole).is_ok()
    });
    Some(if is_valid { least } else { made })
}

fn shown(params: &PluginParams) -> String {
    params.to_json().as_ref().map_or_else(String::new, schema::shown)
}

/// A method that is looked at.
struct Of<'a> {
    ready: &'a Ready,
    place: usize,
}

impl Of<'_> {
    fn call(&self, params: &PluginParams, job: &Bench) -> Looked<Result<Returned>> {
        let plugin = &self.ready.plugin;
        let row = plugin.manifest.methods.get(self.place);
        let row = row.ok_or_else(|| Outcome::Skipped("it is not there".to_owned()))?.clone();
        let name = format!("{}.{}", plugin.manifest.name, row.name);
        let method = Method::of((Arc::clone(plugin), row), &name, params, job);
        let mut method = match method {
            Ok(method) => method,
            Err(error) => return Ok(Err(error)),
        };
        for needed in method.needed() {
            match self.ready.own_engine(&needed, job) {
                Ok(engine) => method.engines.push(engine),
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(method.call(job))
    }
}

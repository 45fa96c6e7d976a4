//! What is looked at in a library as a whole: its entry and tables, its parameters, its instances.

use std::cell::RefCell;
use std::ffi::c_void;
use std::mem::offset_of;

use latentd_client::protocol::PluginParams;
use latentd_plugin_api::abi::{LATENTD_ENGINES, LATENTD_JOB_PLAN, latentd_job, latentd_plugin_entry};
use serde_json::{Map, Value as Json};

use super::bench::{Bench, Looked, Ready, begin, fail, may, must};
use super::inputs::Random;
use super::outcome::Outcome;
use super::schema;
use super::wider::Roomy;
use crate::error::Result;
use crate::plugins::host::{bytes, text};
use crate::plugins::job::is_of_jobs;
use crate::plugins::manifest::Manifest;
use crate::plugins::objects::Objects;
use crate::plugins::parameters;
use crate::plugins::stages::JobStages;
use crate::plugins::tables::STAGES;
use crate::schema::shorten;

/// Parameters that are made up.
const PARAMS: usize = 200;
/// Instances, one after the other.
const INSTANCES: usize = 100;
/// Instances at once.
const AT_ONCE: usize = 16;
/// Bytes that no table of any version has.
const MOST_BYTES: u32 = 1 << 14;
/// MessagePack's map of nothing.
const EMPTY_MAP: [u8; 1] = [0x80];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    DefaultParams,
    EmptyParams,
    AnyParams,
    LargerJob,
    NoMemory,
    Instances,
}

/// Those of a library, by their names.
pub(super) fn of(manifest: &Manifest) -> impl Iterator<Item = (&'static str, Check)> {
    let all = [
        (true, "params-default", Check::DefaultParams),
        (true, "params-empty", Check::EmptyParams),
        (manifest.parameters.is_some(), "params-fuzz", Check::AnyParams),
        (true, "create-larger-structs", Check::LargerJob),
        (true, "create-no-memory", Check::NoMemory),
        (true, "instances", Check::Instances),
    ];
    all.into_iter().filter(|(is_there, ..)| *is_there).map(|(_, name, check)| (name, check))
}

/// Does one.
pub(super) fn run(ready: &Ready, check: Check, random: &mut Random) -> Outcome {
    let looked = match check {
        Check::DefaultParams => default_params(ready),
        Check::EmptyParams => empty_params(ready),
        Check::AnyParams => any_params(ready, random),
        Check::LargerJob => larger_job(ready),
        Check::NoMemory => no_memory(ready),
        Check::Instances => instances(ready),
    };
    looked.err().unwrap_or(Outcome::Ok)
}

/// That what an entry says of itself holds.
pub(super) fn entry(entry: &latentd_plugin_entry, manifest: &Manifest) -> Looked {
    let least = offset_of!(latentd_plugin_entry, create);
    if (entry.size as usize) < least || entry.size > MOST_BYTES {
        return fail(format!("its entry's size is {}: set it to sizeof latentd_entry", entry.size));
    }
    if entry.reserved != 0 {
        return fail(format!("its entry's reserved field is {}, it must be 0", entry.reserved));
    }
    if entry.create.is_some() && entry.destroy.is_none() {
        return Err(Outcome::Warned("it has create and no destroy: who ends its instances?".to_owned()));
    }
    let (major, minor) = manifest.abi;
    if (entry.abi_major, entry.abi_minor) != (major, minor) {
        let text = format!(
            "its manifest says ABI {major}.{minor}, its entry {}.{}",
            entry.abi_major, entry.abi_minor
        );
        return Err(Outcome::Warned(text));
    }
    Ok(())
}

/// What a plugin has by an id.
fn table(entry: &latentd_plugin_entry, id: &str) -> *const c_void {
    // SAFETY: the id is a text that outlives the call.
    entry.extension.map_or(std::ptr::null(), |extension| unsafe { extension(text(id)) })
}

/// That it has nothing by ids that nobody has given out.
pub(super) fn unknown_extension(entry: &latentd_plugin_entry) -> Looked {
    let long = "x".repeat(1 << 16);
    let mut ids = vec![String::new(), "nobody.has/1".into(), "/".into(), "\0".into(), long];
    for stage in STAGES {
        ids.extend([format!("{stage}4711"), stage.to_uppercase(), format!("{stage}\0"), format!(" {stage}")]);
        ids.extend(stage.get(..stage.len() - 1).map(str::to_owned));
        ids.extend(stage.split('/').next().map(str::to_owned));
    }
    match ids.iter().find(|id| !table(entry, id).is_null()) {
        None => Ok(()),
        Some(id) => fail(format!("its extension gives a table for '{}', which is no id of its", shorten(id))),
    }
}

/// That the tables which the manifest promises are there and say how large they are.
pub(super) fn tables(entry: &latentd_plugin_entry, manifest: &Manifest) -> Looked {
    let mut ids: Vec<&str> = manifest.stages.iter().map(|stage| stage.id.as_str()).collect();
    // It need not be named.
    ids.extend(Some(LATENTD_JOB_PLAN).filter(|id| !table(entry, id).is_null()));
    ids.extend(Some(LATENTD_ENGINES).filter(|_| !manifest.engines.is_empty()));
    for id in ids {
        // An id has no zero byte behind it.
        let longer = format!("{id}4711");
        let found = table(entry, longer.get(..id.len()).unwrap_or(id));
        if found.is_null() {
            return fail(format!("its manifest names {id}, but its extension gives no such table"));
        }
        if found != table(entry, id) {
            return fail(format!("{id}: its extension gives another table each time; it must be a constant"));
        }
        // SAFETY: a table begins with its size, a reserved number and one function at least.
        let (size, reserved) =
            unsafe { (found.cast::<u32>().read_unaligned(), found.cast::<u32>().add(1).read_unaligned()) };
        if (size as usize) < 8 + size_of::<usize>() || size > MOST_BYTES {
            return fail(format!("{id}: its table's size is {size}: set it to sizeof of the table"));
        }
        if reserved != 0 {
            return fail(format!("{id}: its table's reserved field is {reserved}, it must be 0"));
        }
        // SAFETY: as above; the first function stands behind them.
        let function = unsafe { found.cast::<usize>().add(1).read_unaligned() };
        if function == 0 && (STAGES.contains(&id) || id == LATENTD_JOB_PLAN) {
            return fail(format!("{id}: its table's function is null"));
        }
    }
    let unknown = manifest.stages.iter().find(|stage| !STAGES.contains(&stage.id.as_str()));
    match unknown {
        Some(stage) => {
            Err(Outcome::Warned(format!("its manifest names {}, which this latentd does not have", stage.id)))
        }
        None if manifest.stages.is_empty() && manifest.engines.is_empty() && manifest.methods.is_empty() => {
            Err(Outcome::Warned("its manifest names neither stages nor engines nor methods".to_owned()))
        }
        None => Ok(()),
    }
}

fn default_params(ready: &Ready) -> Looked {
    let mut defaults = Json::Object(Map::new());
    if let Some(schema) = &ready.plugin.manifest.parameters {
        let settled = parameters::with_defaults(schema, &mut defaults);
        settled
            .and_then(|()| parameters::validate(schema, &defaults))
            .map_err(|why| Outcome::Skipped(format!("its schema wants more than defaults: {why}")))?;
    }
    let job = Bench::new();
    let plugins = must(ready.resolve(&PluginParams::default(), &job), "")?;
    begin(&plugins, &job).map(|_| ())
}

/// A host that puts no defaults in.
fn empty_params(ready: &Ready) -> Looked {
    let told = job(&EMPTY_MAP);
    may(create(ready, &raw const told), "").map(|_| ())
}

fn any_params(ready: &Ready, random: &mut Random) -> Looked {
    let Some(schema) = &ready.plugin.manifest.parameters else {
        return Err(Outcome::Skipped("it takes no parameters".to_owned()));
    };
    let mut tried = 0;
    for _ in 0..PARAMS {
        let Some(params) = schema::params(schema, random) else { continue };
        tried += 1;
        let shown = schema::shown(&params);
        ready.at(&shown);
        let job = Bench::new();
        let plugins = ready.resolve(&PluginParams::from_json(params), &job);
        if let Some(plugins) = may(plugins, &shown)? {
            may(JobStages::begin(&plugins, &job), &shown)?;
        }
    }
    if tried == 0 {
        return Err(Outcome::Skipped("no parameters were found that its schema allows".to_owned()));
    }
    Ok(())
}

/// A host whose job has more fields.
fn larger_job(ready: &Ready) -> Looked {
    let bench = Bench::new();
    let plugins = ready.planned(&bench)?;
    if !ready.plugin.manifest.stages.iter().any(|stage| is_of_jobs(&stage.id)) {
        // It has no instances.
        return Ok(());
    }
    let Some(member) = plugins.members.first() else {
        return Err(Outcome::Skipped("by its job.plan it takes no part with these parameters".to_owned()));
    };
    let params = member.given.packed(&[]);
    let told = Roomy::of(&plugins.described(member, &params), 64);
    must(create(ready, told.pointer()), "")
}

fn no_memory(ready: &Ready) -> Looked {
    let job = Bench::new();
    let plugins = ready.planned(&job)?;
    job.grant(0);
    match JobStages::begin(&plugins, &job) {
        Ok(_) => Ok(()),
        Err(_) if job.refused() > 0 => Ok(()),
        Err(error) => fail(error.text),
    }
}

fn instances(ready: &Ready) -> Looked {
    let job = Bench::new();
    let plugins = ready.planned(&job)?;
    for _ in 0..INSTANCES {
        begin(&plugins, &job)?;
    }
    (0..AT_ONCE).map(|_| begin(&plugins, &job)).collect::<Looked<Vec<_>>>().map(|_| ())
}

/// A job of these parameters.
fn job(params: &[u8]) -> latentd_job {
    latentd_job {
        size: size_of::<latentd_job>() as u32,
        depth: 0,
        method: text("txt2img"),
        request: bytes(&EMPTY_MAP),
        params: bytes(params),
        note: bytes(&[]),
        pictures: 1,
        batch: 1,
    }
}

/// Makes an instance and ends it.
fn create(ready: &Ready, told: *const latentd_job) -> Result<()> {
    let Some(create) = ready.plugin.tables.entry.create else { return Ok(()) };
    let (bench, objects, mut made) = (Bench::new(), RefCell::<Objects>::default(), std::ptr::null_mut());
    let call = ready.plugin.call(&bench, Some(&objects), None);
    // SAFETY: what is lent lives until the function returns; the call is this one.
    let status = unsafe { create(call.pointer(), told, &raw mut made) };
    call.end(status, "create")?;
    if let Some(destroy) = ready.plugin.tables.entry.destroy {
        // SAFETY: `create` made it, and it is ended once.
        unsafe { destroy(made) };
    }
    Ok(())
}

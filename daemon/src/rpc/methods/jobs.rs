//! `jobs.*`.

use std::sync::atomic::Ordering;

use latentd_client::protocol::{
    JobList, JobListParams, JobParams, JobRef, JobView, SubmitParams, SubscribeParams, Subscribed,
};
use rmpv::Value;
use schemars::SchemaGenerator;
use serde_json::{Value as Json, json};

use super::plugin_calls;
use super::row::{Method, Promise, Run, Session, Wishes, encode, method, quick};
use super::value::{decode, read};
use crate::error::{Error, Result};
use crate::rpc::session::Daemon;
use crate::schema;
use crate::suggest::advice;
use crate::workers::Workers;

/// `submittable` are the methods whose requests become jobs.
pub(super) fn methods(submittable: &[Method]) -> Vec<Method> {
    vec![
        method::<SubmitParams>("jobs.submit", schema::of::<JobRef>(), submit()),
        method::<JobParams>("jobs.wait", any_result(submittable), wait()),
        quick("jobs.get", books, get),
        quick("jobs.list", books, list),
        quick("jobs.cancel", books, cancel),
        quick("jobs.subscribe", books, subscribe),
    ]
}

/// All of these read or write the history.
fn books(daemon: &Daemon) -> &Workers {
    &daemon.books
}

/// The schema of what any of these methods gives.
fn any_result(methods: &[Method]) -> Json {
    let mut generator = SchemaGenerator::default();
    let rows = methods.iter().filter_map(|method| method.job.as_ref());
    let mut any: Vec<_> = rows.map(|row| (row.result)(&mut generator).to_value()).collect();
    any.push(json!({
        "type": "object",
        "required": ["job", "method"],
        "properties": {"job": {"type": "string"}, "method": {"type": "string"}},
        "description": "What a method of a plugin gives: api_info says it under the method's name.",
    }));
    json!({ "anyOf": any, "$defs": generator.take_definitions(true) })
}

fn submit() -> Run {
    let check = schema::of::<SubmitParams>();
    Run::Submit(Box::new(move |session, mut value| -> Promise<_> {
        let outcome = schema::check(&check, &value).and_then(|()| {
            // Apart, as it was sent: it is checked and counted by its own method.
            let of_method = take_entry(&mut value, "params");
            let params: SubmitParams = read(value)?;
            let wishes = Wishes { id: params.id, on_disconnect: params.on_disconnect };
            let of_method = of_method.unwrap_or(params.params);
            match session.methods.find_job(&params.method) {
                Some(row) => Ok((row.submit)(&session, of_method, wishes)),
                None if session.methods.may_be_of_plugin(&params.method) => {
                    Ok(plugin_calls::submit(&session, &params.method, of_method, wishes))
                }
                None => Err(not_a_job(&session, &params.method)),
            }
        });
        Box::pin(async move { encode(&JobRef { job: outcome?.await? }) })
    }))
}

/// Takes the value of a key that a map has once.
fn take_entry(map: &mut Value, wanted: &str) -> Option<Value> {
    let Value::Map(entries) = map else {
        return None;
    };
    let mut places = (0..entries.len()).filter(|at| entries[*at].0.as_str() == Some(wanted));
    let (place, again) = (places.next()?, places.next());
    again.is_none().then(|| entries.swap_remove(place).1)
}

fn not_a_job(session: &Session, method: &str) -> Error {
    let shown = schema::shorten(method);
    let advice = advice(method, session.methods.jobs());
    let listed = session.methods.jobs().collect::<Vec<_>>().join(", ");
    Error::not_found(format!("method: '{shown}' cannot be submitted; those that can: {listed}{advice}"))
}

fn wait() -> Run {
    let check = schema::of::<JobParams>();
    Run::Wait(Box::new(move |session, value| -> Promise<_> {
        let wanted = decode::<JobParams>(&check, value).map(|params| session.daemon.jobs.want(&params.job));
        Box::pin(async move { Ok(session.daemon.jobs.wait(wanted?).await) })
    }))
}

fn get(session: &Session, params: JobParams) -> Result<JobView> {
    session.daemon.jobs.get(&params.job)
}

fn list(session: &Session, params: JobListParams) -> Result<JobList> {
    Ok(JobList { jobs: session.daemon.jobs.list(&params)? })
}

fn cancel(session: &Session, params: JobParams) -> Result<JobView> {
    session.daemon.jobs.cancel(&params.job)
}

fn subscribe(session: &Session, params: SubscribeParams) -> Result<Subscribed> {
    let jobs = &session.daemon.jobs;
    session.listens.store(true, Ordering::Relaxed);
    let Some(job) = &params.job else {
        jobs.watch_all(&session.watcher());
        return Ok(Subscribed { job: None });
    };
    let view = jobs.watch(job, &session.watcher(), params.since.unwrap_or(0))?;
    Ok(Subscribed { job: Some(view) })
}

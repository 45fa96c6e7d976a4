//! What a method is, and how a typed function becomes one.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use latentd_client::protocol::OnDisconnect;
use rmpv::Value;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::value::decode;
use crate::error::{Error, Result};
use crate::jobs::{Ended, Watcher};
use crate::plugins::may_be;
use crate::rpc::session::{Daemon, Outbox};
use crate::schema;
use crate::suggest::advice;
use crate::workers::Workers;

/// An encoded result.
pub(crate) type Reply = Result<Vec<u8>>;

/// Who calls.
#[derive(Clone)]
pub(crate) struct Session {
    pub daemon: Arc<Daemon>,
    pub outbox: Arc<Outbox>,
    pub methods: Arc<Methods>,
    /// Whether this connection follows the jobs it submits.
    pub follows_own: Arc<AtomicBool>,
    /// Whether it waits for events of any job.
    pub listens: Arc<AtomicBool>,
}

impl Session {
    /// This connection as one who is told what happens.
    pub(super) fn watcher(&self) -> Arc<dyn Watcher> {
        Arc::clone(&self.outbox) as Arc<dyn Watcher>
    }
}

type Now = Box<dyn Fn(&Session, Value) -> Reply + Send + Sync>;
/// What will be there.
pub(super) type Promise<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;
type Start<T> = Box<dyn Fn(Session, Value) -> Promise<T> + Send + Sync>;
/// From a method's name and parameters to what it answers.
pub(super) type CallByName = Box<dyn Fn(Session, &str, Value) -> Promise<Answered> + Send + Sync>;
/// From the parameters of a request to a job's id.
pub(super) type Submit = dyn Fn(&Session, Value, Wishes) -> Promise<String> + Send + Sync;

/// What a submit asks for beside what is to be done.
#[derive(Default)]
pub(in crate::rpc) struct Wishes {
    /// The job's id.
    pub id: Option<String>,
    pub on_disconnect: OnDisconnect,
}

/// How a method runs.
pub(crate) enum Run {
    /// At once, before the next request is read: it never waits, and touches no file.
    Now(Now),
    /// On one of a few threads; the answer is of modest size.
    Quick(Start<Vec<u8>>),
    /// Answered in a moment, with a few bytes.
    Submit(Start<Vec<u8>>),
    /// Waits for a job; the job's result is the answer.
    Wait(Start<Ended>),
    /// One of the methods that plugins have, by its name: what it is is found first.
    OfPlugin(CallByName),
}

/// What a plugin's method answers.
pub(crate) enum Answered {
    /// A quick one.
    Now(Vec<u8>),
    /// A job.
    Ended(Ended),
}

/// One method.
pub(crate) struct Method {
    pub name: &'static str,
    /// JSON Schema of the parameters' map.
    pub params: Json,
    /// JSON Schema of the result.
    pub result: Json,
    pub run: Run,
    /// How it is submitted, if its requests become jobs.
    pub job: Option<JobRow>,
}

/// What `jobs.submit` and `jobs.wait` have to know of a method.
pub(crate) struct JobRow {
    pub submit: Arc<Submit>,
    /// The result's schema, among others.
    pub result: fn(&mut SchemaGenerator) -> Schema,
}

/// All methods by name.
pub(crate) struct Methods {
    by_name: BTreeMap<&'static str, Method>,
    /// What those of plugins are called by.
    of_plugins: Method,
}

impl Methods {
    pub(super) fn new(methods: impl Iterator<Item = Method>, of_plugins: Method) -> Self {
        Self { by_name: methods.map(|method| (method.name, method)).collect(), of_plugins }
    }

    /// The method of this name, or an error with the nearest one. What a plugin may have is told by its name alone.
    pub(crate) fn find(&self, name: &str) -> Result<&Method> {
        match self.by_name.get(name) {
            Some(method) => Ok(method),
            None if may_be(name) => Ok(&self.of_plugins),
            None => {
                let shown = schema::shorten(name);
                let advice = self.advice(name);
                Err(Error::not_found(format!("no method '{shown}'; api_info lists all{advice}")))
            }
        }
    }

    /// Which of ours may be meant.
    pub(super) fn advice(&self, name: &str) -> String {
        advice(name, self.by_name.keys().copied())
    }

    /// Whether a name that is none of ours may be a plugin's.
    pub(super) fn may_be_of_plugin(&self, name: &str) -> bool {
        !self.by_name.contains_key(name) && may_be(name)
    }

    /// How the method of this name is submitted.
    pub(super) fn find_job(&self, name: &str) -> Option<&JobRow> {
        self.by_name.get(name).and_then(|method| method.job.as_ref())
    }

    /// Methods whose requests become jobs.
    pub(super) fn jobs(&self) -> impl Iterator<Item = &'static str> {
        self.all().filter(|method| method.job.is_some()).map(|method| method.name)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Method> {
        self.by_name.values()
    }
}

/// A method that never waits.
pub(super) fn now<P, R>(name: &'static str, run: fn(&Session, &P) -> Result<R>) -> Method
where
    P: DeserializeOwned + JsonSchema + 'static,
    R: Serialize + JsonSchema + 'static,
{
    let params = schema::of::<P>();
    let check = params.clone();
    let run = Run::Now(Box::new(move |session, value| {
        let params = decode::<P>(&check, value)?;
        encode(&run(session, &params)?)
    }));
    Method { name, params, result: schema::of::<R>(), run, job: None }
}

/// A method that reads files, on one of the threads that `workers` names.
pub(super) fn quick<P, R>(
    name: &'static str,
    workers: fn(&Daemon) -> &Workers,
    run: fn(&Session, P) -> Result<R>,
) -> Method
where
    P: DeserializeOwned + JsonSchema + Send + 'static,
    R: Serialize + JsonSchema + 'static,
{
    let params = schema::of::<P>();
    let check = params.clone();
    let run = Run::Quick(Box::new(move |session, value| {
        let params = decode::<P>(&check, value);
        Box::pin(async move {
            let params = params?;
            let daemon = Arc::clone(&session.daemon);
            workers(&daemon).call(move || encode(&run(&session, params)?)).await
        })
    }));
    Method { name, params, result: schema::of::<R>(), run, job: None }
}

/// A method with parameters `P` that runs as `run` says.
pub(super) fn method<P: JsonSchema>(name: &'static str, result: Json, run: Run) -> Method {
    Method { name, params: schema::of::<P>(), result, run, job: None }
}

pub(super) fn encode<R: Serialize>(result: &R) -> Reply {
    rmp_serde::to_vec_named(result)
        .map_err(|error| Error::internal(format!("the result cannot be encoded: {error}")))
}

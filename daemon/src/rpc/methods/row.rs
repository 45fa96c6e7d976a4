//! What a method is, and how a typed function becomes one.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rmpv::Value;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::error::{Error, Result};
use crate::jobs::{Ended, Watcher};
use crate::rpc::session::{Daemon, Outbox};
use crate::schema;
use crate::suggest::nearest;

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
}

impl Session {
    /// This connection as one who is told what happens.
    pub(super) fn watcher(&self) -> Arc<dyn Watcher> {
        Arc::clone(&self.outbox) as Arc<dyn Watcher>
    }
}

type Now = Box<dyn Fn(&Session, Value) -> Reply + Send + Sync>;
type Promise<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;
type Start<T> = Box<dyn Fn(Session, Value) -> Promise<T> + Send + Sync>;

/// How a method runs.
pub(crate) enum Run {
    /// At once, before the next request is read: it never waits.
    Now(Now),
    /// In a task of its own.
    Later(Start<Vec<u8>>),
    /// In a task of its own, which waits for a job; the job's result is the answer.
    Job(Start<Ended>),
}

/// One method.
pub(crate) struct Method {
    pub name: &'static str,
    /// JSON Schema of the parameters' map.
    pub params: Json,
    /// JSON Schema of the result.
    pub result: Json,
    pub run: Run,
}

/// All methods by name.
pub(crate) struct Methods {
    by_name: BTreeMap<&'static str, Method>,
}

impl Methods {
    pub(super) fn new(methods: impl Iterator<Item = Method>) -> Self {
        Self { by_name: methods.map(|method| (method.name, method)).collect() }
    }

    /// The method of this name, or an error with the nearest one.
    pub(crate) fn find(&self, name: &str) -> Result<&Method> {
        self.by_name.get(name).ok_or_else(|| {
            let meant = nearest(name, self.by_name.keys().copied()).unwrap_or_default();
            let shown = schema::shorten(name);
            let text = format!("no method '{shown}'; did you mean '{meant}'? api_info lists all");
            Error::not_found(text)
        })
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
        let params = schema::decode::<P>(&check, &value)?;
        encode(&run(session, &params)?)
    }));
    Method { name, params, result: schema::of::<R>(), run }
}

/// A method that reads files or waits for a thread: it runs where that holds up nobody.
pub(super) fn blocking<P, R>(name: &'static str, run: fn(&Session, &P) -> Result<R>) -> Method
where
    P: DeserializeOwned + JsonSchema + Send + 'static,
    R: Serialize + JsonSchema + 'static,
{
    let params = schema::of::<P>();
    let check = params.clone();
    let run = Run::Later(Box::new(move |session, value| {
        let params = schema::decode::<P>(&check, &value);
        Box::pin(async move {
            let params = params?;
            let work = move || encode(&run(&session, &params)?);
            tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(failed(&error)))
        })
    }));
    Method { name, params, result: schema::of::<R>(), run }
}

/// A method that waits for a job, whose result is an `R`.
pub(super) fn waiting<P, R, F>(name: &'static str, run: fn(Session, P) -> F) -> Method
where
    P: DeserializeOwned + JsonSchema + Send + 'static,
    R: JsonSchema,
    F: Future<Output = Result<Ended>> + Send + 'static,
{
    let params = schema::of::<P>();
    let check = params.clone();
    let run = Run::Job(Box::new(move |session, value| match schema::decode::<P>(&check, &value) {
        // Called here, not in the task, so that jobs are queued in the order in which they were asked for.
        Ok(params) => Box::pin(run(session, params)),
        Err(error) => Box::pin(std::future::ready(Err(error))),
    }));
    Method { name, params, result: schema::of::<R>(), run }
}

fn encode<R: Serialize>(result: &R) -> Reply {
    rmp_serde::to_vec_named(result)
        .map_err(|error| Error::internal(format!("the result cannot be encoded: {error}")))
}

pub(crate) fn failed(error: &tokio::task::JoinError) -> Error {
    Error::internal(format!("the daemon failed at this request: {error}; please report it"))
}

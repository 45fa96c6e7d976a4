//! Methods that plugins have, `NAME.method`: called at once, or submitted as jobs, as the plugin says.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use latentd_client::protocol::PluginParams;
use rmpv::Value;
use serde_json::{Value as Json, json};

use super::digest;
use super::job;
use super::row::{Answered, Method, Promise, Run, Session, Wishes};
use super::value::read;
use crate::error::{Class, Error, Result};
use crate::jobs::{Answer, Job, Wanted};
use crate::plugins::MethodKind;
use crate::schema;
use crate::tasks::{PluginMethod, Request, quick_plugin_method};

/// Quick calls of one plugin at once: one that is stuck takes no threads from others.
const AT_ONCE: usize = 8;
/// After which who waits for a quick one is told that nothing came; by then it was to be done long ago.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// A request that has its place in the queue, or what it takes to give it one.
enum Begun<T> {
    Reserved(Result<(Arc<Job>, Wanted)>),
    Not(T),
}

/// What a plugin's method is called by, whatever its name.
pub(super) fn method() -> Method {
    let run = |session: Session, name: &str, value: Value| -> Promise<Answered> {
        let name: Arc<str> = name.into();
        // Once it is known what it is, jobs are queued in the order in which they were asked for.
        let known = session.daemon.studio.plugins.known_method(&name);
        let wait = |session: &Session, name: &Arc<str>, value| {
            reserve(session, name, value, Wishes::default(), Answer::Result)
        };
        let begun = match known {
            Some(MethodKind::Job) => Begun::Reserved(wait(&session, &name, value)),
            _ => Begun::Not(value),
        };
        Box::pin(async move {
            let reserved = match begun {
                Begun::Reserved(reserved) => reserved,
                Begun::Not(value) => match kind(&session, &name, known).await? {
                    MethodKind::Quick => return quick(&session, name, value).await.map(Answered::Now),
                    MethodKind::Job => wait(&session, &name, value),
                },
            };
            let (job, wanted) = reserved?;
            job.submitted().await?;
            Ok(Answered::Ended(session.daemon.jobs.wait(wanted).await))
        })
    };
    let (params, result) = (json!({"type": "object"}), json!({"type": "object"}));
    Method { name: "NAME.method", params, result, run: Run::OfPlugin(Box::new(run)), job: None }
}

/// Submits a method; the job's id.
pub(super) fn submit(session: &Session, name: &str, value: Value, wishes: Wishes) -> Promise<String> {
    let (session, name): (_, Arc<str>) = (session.clone(), name.into());
    let known = session.daemon.studio.plugins.known_method(&name);
    let begun = match known {
        Some(MethodKind::Job) => Begun::Reserved(reserve(&session, &name, value, wishes, Answer::Id)),
        _ => Begun::Not((value, wishes)),
    };
    Box::pin(async move {
        let reserved = match begun {
            Begun::Reserved(reserved) => reserved,
            Begun::Not((value, wishes)) => {
                if kind(&session, &name, known).await? == MethodKind::Quick {
                    let text = format!(
                        "method: '{}' is a quick one, which is no job; call it",
                        schema::shorten(&name)
                    );
                    return Err(Error::invalid(text));
                }
                reserve(&session, &name, value, wishes, Answer::Id)
            }
        };
        let (job, _) = reserved?;
        job.submitted().await?;
        Ok(job.id.clone())
    })
}

/// What a method is: as it was known, or as its plugin's file says now.
async fn kind(session: &Session, name: &Arc<str>, known: Option<MethodKind>) -> Result<MethodKind> {
    if let Some(kind) = known {
        return Ok(kind);
    }
    let (studio, wanted) = (Arc::clone(&session.daemon.studio), Arc::clone(name));
    let found = session.daemon.lookers.call(move || studio.plugins.method_kind(&wanted)).await;
    found.map_err(|error| {
        let advice = session.methods.advice(name);
        if error.class != Class::NotFound || advice.is_empty() {
            return error;
        }
        Error::not_found(format!("no method '{}'; api_info lists all{advice}", schema::shorten(name)))
    })
}

/// As every request's parameters are: a map, each key once.
static MAP: LazyLock<Json> = LazyLock::new(schema::of::<PluginParams>);

fn params(value: Value) -> Result<PluginParams> {
    schema::check(&MAP, &value)?;
    read(value)
}

fn reserve(
    session: &Session,
    name: &Arc<str>,
    value: Value,
    wishes: Wishes,
    answer: Answer,
) -> Result<(Arc<Job>, Wanted)> {
    // An empty table of Lua goes over the wire as an empty array.
    let value = if value.as_array().is_some_and(Vec::is_empty) { Value::Map(Vec::new()) } else { value };
    let (digest, bytes) = digest::of(&value);
    let params = params(value)?;
    let (request, name) = (Request { method: Arc::clone(name), digest, bytes }, Arc::clone(name));
    job::place(session, request, (wishes, answer), move |studio, watch| {
        Ok(Arc::new(PluginMethod::resolve(&name, &params, studio, watch)?))
    })
}

/// Calls that are under way, by plugins.
static UNDER_WAY: LazyLock<Mutex<BTreeMap<String, usize>>> = LazyLock::new(Mutex::default);

/// A call's place among those of its plugin.
struct Place(String);

impl Place {
    fn take(plugin: &str) -> Result<Self> {
        let mut all = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(plugin.to_owned()).or_default();
        if *count >= AT_ONCE {
            let text = format!("{AT_ONCE} calls of plugin '{plugin}' are under way, which is the limit");
            return Err(Error::new(Class::Busy, format!("{text}; wait for some")));
        }
        *count += 1;
        Ok(Self(plugin.to_owned()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.0) {
            *count -= 1;
        }
        all.retain(|_, count| *count > 0);
    }
}

async fn quick(session: &Session, name: Arc<str>, value: Value) -> Result<Vec<u8>> {
    let params = params(value)?;
    let plugin = name.split('.').next().unwrap_or_default();
    let place = Place::take(plugin)?;
    let (studio, wanted) = (Arc::clone(&session.daemon.studio), Arc::clone(&name));
    let called = session.daemon.callers.call(move || {
        let _place = place;
        quick_plugin_method(&wanted, &params, &studio)
    });
    tokio::time::timeout(ANSWERED_WITHIN, called).await.unwrap_or_else(|_| {
        let seconds = ANSWERED_WITHIN.as_secs();
        let text =
            format!("plugin '{plugin}': '{name}' has not answered within {seconds} s; it is left to itself");
        Err(Error::new(Class::Plugin, text))
    })
}

//! `initialize`, `api_info`, `ping`, `status`, `shutdown`.

use std::sync::atomic::Ordering;

use latentd_client::protocol::{
    ApiInfo, Capabilities, DEFAULT_EVENT_METHOD, Device, Empty, Event, InitializeParams, InitializeResult,
    LIBRARY_EVENT_METHOD, LibraryEvent, MemoryStatus, MethodInfo, PROTOCOL, Server, ServerLimits, Status,
};
use latentd_models::sampling::{NoiseSource, Sampler, Schedule};
use tracing::info;

use super::row::{Method, Session, now, quick};
use crate::error::{Error, Result};
use crate::plugins::{Listed, MethodKind};
use crate::rpc::session::Phase;
use crate::{machine, schema};

const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(super) fn methods() -> Vec<Method> {
    vec![
        now("initialize", initialize),
        quick("api_info", |daemon| &daemon.lookers, api_info),
        now("ping", |_, _: &Empty| Ok(Empty {})),
        now("status", status),
        now("shutdown", shutdown),
    ]
}

fn initialize(session: &Session, params: &InitializeParams) -> Result<InitializeResult> {
    info!(client = params.client.name, version = params.client.version, "introduced");
    if let Some(method) = &params.events {
        if method.is_empty() {
            return Err(Error::invalid("events: must be a method name, such as 'job.event'"));
        }
        session.outbox.set_event_method(method, &params.event_args);
        session.follows_own.store(true, Ordering::Relaxed);
    }
    let config = session.daemon.config.get();
    let studio = &session.daemon.studio;
    let of_plugins = studio.plugins.methods(&|kind| studio.library.names(kind)).into_iter();
    let of_plugins = of_plugins.map(|listed| listed.name);
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    Ok(InitializeResult {
        server: Server { name: "latentd".into(), version: VERSION.into() },
        protocol: PROTOCOL,
        capabilities: Capabilities {
            methods: session.methods.all().map(|method| method.name.to_owned()).chain(of_plugins).collect(),
            samplers: Sampler::all().map(|sampler| sampler.name.to_owned()).collect(),
            schedulers: Schedule::ALL.iter().map(|(_, name)| (*name).to_owned()).collect(),
            rngs: NoiseSource::ALL.iter().map(|(_, name)| (*name).to_owned()).collect(),
            precisions: names(&["auto", "f32", "bf16"]),
            output_formats: names(&["png", "jpeg", "webp", "raw", "file"]),
            preview_kinds: names(&["latent"]),
        },
        limits: ServerLimits {
            message_bytes: config.message_bytes,
            message_elements: config.message_elements,
            message_depth: latentd_client::codec::Limits::default().depth as u64,
            queue: config.queue,
            result_bytes: config.result_bytes,
            result_ttl_s: config.result_ttl_s,
            requests_per_connection: config.requests_per_connection,
        },
    })
}

fn api_info(session: &Session, _: Empty) -> Result<ApiInfo> {
    let methods = session.methods.all().map(|method| {
        let info = MethodInfo {
            since: PROTOCOL,
            deprecated: None,
            params: method.params.clone(),
            result: method.result.clone(),
            job: method.job.is_some(),
            plugin: None,
            description: None,
        };
        (method.name.to_owned(), info)
    });
    let studio = &session.daemon.studio;
    let of_plugins = studio.plugins.methods(&|kind| studio.library.names(kind)).into_iter().map(|listed| {
        let Listed { name, plugin, kind, description, params, result, .. } = listed;
        let job = kind == MethodKind::Job;
        let (since, deprecated, plugin) = (PROTOCOL, None, Some(plugin));
        (name, MethodInfo { since, deprecated, params, result, job, plugin, description })
    });
    // Names of ours are none of theirs.
    let methods = methods.chain(of_plugins);
    let notifications = [
        (DEFAULT_EVENT_METHOD.to_owned(), schema::of::<Event>()),
        (LIBRARY_EVENT_METHOD.to_owned(), schema::of::<LibraryEvent>()),
    ];
    Ok(ApiInfo { protocol: PROTOCOL, methods: methods.collect(), notifications: notifications.into() })
}

fn status(session: &Session, _: &Empty) -> Result<Status> {
    let daemon = &session.daemon;
    Ok(Status {
        version: VERSION.into(),
        pid: std::process::id(),
        uptime_s: daemon.started.elapsed().as_secs_f64(),
        devices: vec![Device {
            kind: daemon.studio.device.memory.device().kind().into(),
            name: machine::cpu_name().unwrap_or_else(|| "CPU".into()),
            threads: daemon.studio.threads() as u32,
        }],
        memory: MemoryStatus {
            budget_bytes: daemon.studio.device.memory.budget(),
            models_bytes: daemon.studio.device.memory.bytes(),
            rss_bytes: machine::resident_memory(),
        },
        models: daemon.studio.device.memory.list(),
        queue: daemon.jobs.queue_status(),
        storage: daemon.storage(),
        plugins: daemon.studio.plugins.records.list(),
        connections: daemon.connections.load(Ordering::Relaxed),
        stopping: daemon.jobs.is_stopping(),
        config: daemon.reloaded.borrow().clone(),
    })
}

fn shutdown(session: &Session, _: &Empty) -> Result<Empty> {
    info!("asked to stop");
    session.daemon.advance(Phase::Stopping);
    Ok(Empty {})
}

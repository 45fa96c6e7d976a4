//! `plugins.*`: what is installed, and what parameters it takes.

use latentd_client::protocol::{
    Empty, PluginEnableParams, PluginEntry, PluginList, PluginSchema, PluginSchemaParams,
};

use super::row::{Method, Session, quick};
use crate::error::Result;

pub(super) fn methods() -> Vec<Method> {
    vec![
        quick("plugins.list", |daemon| &daemon.lookers, list),
        quick("plugins.enable", |daemon| &daemon.lookers, enable),
        quick("plugins.schema", |daemon| &daemon.lookers, schema),
    ]
}

fn list(session: &Session, _: Empty) -> Result<PluginList> {
    let studio = &session.daemon.studio;
    Ok(studio.plugins.list(&|kind| studio.library.names(kind)))
}

fn enable(session: &Session, params: PluginEnableParams) -> Result<PluginEntry> {
    let studio = &session.daemon.studio;
    studio.plugins.enable(&params.name, &|kind| studio.library.names(kind))
}

fn schema(session: &Session, params: PluginSchemaParams) -> Result<PluginSchema> {
    let studio = &session.daemon.studio;
    studio.plugins.schema(&params.name, &|kind| studio.library.names(kind))
}

//! Functions of plugins that are asked as something comes, before there is a job: they have no instance, and so much time.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use latentd_plugin_api::abi::latentd_call;

use super::call::{Job, State};
use super::library::Plugin;
use super::opened::Opened;
use crate::error::{Class, Error, Result};

/// What a plugin has to answer. Within the daemon it cannot be ended, only be told of it.
pub(super) const WITHIN: Duration = Duration::from_secs(5);

/// Who is asked, and where.
pub(super) struct Asked<'a> {
    pub plugin: &'a Plugin,
    pub stage: &'a str,
    /// What it does, for whoever cancels it.
    pub doing: &'a str,
}

impl Asked<'_> {
    /// An error of what it answered.
    pub(super) fn error(&self, class: Class, what: &str) -> Error {
        Error::new(class, format!("plugin '{}', {}: {what}", self.plugin.manifest.name, self.stage))
    }

    /// What a call of `run` left; nothing if it answered SKIP: then it is as if it had never been called.
    pub(super) fn answer<'a>(
        &'a self,
        job: &'a dyn Job,
        opened: Option<&'a RefCell<Opened>>,
        run: impl FnOnce(*mut latentd_call) -> u32,
    ) -> Result<Option<State<'a>>> {
        let call = self.plugin.call(job, None, None);
        let call = match opened {
            Some(opened) => call.with_opened(opened),
            None => call,
        };
        let begun = Instant::now();
        let status = run(call.pointer());
        let took = begun.elapsed();
        let state = call.end(status, self.stage)?;
        if job.is_cancelled() {
            let text = format!("cancelled while plugin '{}' {}", self.plugin.manifest.name, self.doing);
            return Err(Error::new(Class::Cancelled, text));
        }
        if took > WITHIN {
            let text = format!("it took {:.1} s, {} are allowed", took.as_secs_f64(), WITHIN.as_secs());
            return Err(self.error(Class::Plugin, &text));
        }
        if !state.replaced.is_empty() {
            return Err(self.error(Class::Plugin, "it replaces what no stage gave it"));
        }
        Ok((status == 0).then_some(state))
    }
}

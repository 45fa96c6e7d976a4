//! What plugins did since the daemon started: how often they were called, how long that took, what failed, what they logged.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use latentd_client::protocol::{PluginLine, PluginStatus};

use super::call::{Job, Recorded};
use super::manifest::Manifest;
use crate::clock;
use crate::error::{Class, Result};

/// Lines that are kept of each.
const MOST_LINES: usize = 20;
/// Characters of a line, and of why something failed.
const LINE_LENGTH: usize = 1000;

/// Of all plugins.
#[derive(Default)]
pub(crate) struct Records(Mutex<BTreeMap<(String, String), Record>>);

/// Of one version of one.
#[derive(Default)]
struct Record {
    calls: u64,
    spent: Duration,
    failures: u64,
    last_failure: Option<String>,
    log: VecDeque<PluginLine>,
}

impl Records {
    /// Takes note of something.
    pub(crate) fn record(&self, plugin: &str, version: &str, event: &Recorded<'_>) {
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let record = records.entry((plugin.to_owned(), version.to_owned())).or_default();
        match event {
            Recorded::Ran { calls, spent } => {
                record.calls += calls;
                record.spent += *spent;
            }
            Recorded::Failed(why) => {
                record.failures += 1;
                record.last_failure = Some(cut(why));
            }
            Recorded::Logged { .. } => {
                if record.log.len() == MOST_LINES {
                    record.log.pop_front();
                }
                record.log.extend(line(plugin, event));
            }
        }
    }

    /// For `status`.
    pub(crate) fn list(&self) -> Vec<PluginStatus> {
        let records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = |((name, version), record): (&(String, String), &Record)| PluginStatus {
            name: name.clone(),
            version: version.clone(),
            calls: record.calls,
            seconds: record.spent.as_secs_f64(),
            failures: record.failures,
            last_failure: record.last_failure.clone(),
            log: record.log.iter().cloned().collect(),
        };
        records.iter().map(entry).collect()
    }
}

/// A line that a plugin logged, as clients are told of it.
pub(crate) fn line(plugin: &str, event: &Recorded<'_>) -> Option<PluginLine> {
    let Recorded::Logged { level, text } = event else { return None };
    Some(PluginLine {
        plugin: plugin.to_owned(),
        time: clock::now(),
        level: (*level).to_owned(),
        text: cut(text),
    })
}

fn cut(text: &str) -> String {
    text.chars().take(LINE_LENGTH).collect()
}

/// Has a plugin do something by itself, outside of a job's stages, and takes note of that.
pub(super) fn recorded<T>(job: &dyn Job, plugin: &Manifest, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let begun = Instant::now();
    let done = work();
    let (name, version) = (plugin.name.as_str(), plugin.version.as_str());
    job.record(name, version, &Recorded::Ran { calls: 1, spent: begun.elapsed() });
    if let Err(error) = &done
        && error.class != Class::Cancelled
    {
        job.record(name, version, &Recorded::Failed(&error.text));
    }
    done
}

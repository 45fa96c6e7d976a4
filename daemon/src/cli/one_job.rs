//! A command that is one job of a daemon: submitted, followed, and cancelled with the command.

use std::cell::Cell;
use std::io::IsTerminal;
use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use latentd_client::protocol::{ErrorName, Event, EventKind, JobState, OnDisconnect};
use latentd_client::{Client, SubmitOptions};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::failure::Failure;
use super::global::GlobalArgs;
use super::launch;
use super::output::{say, visible};
use super::stopped::Stopped;
use crate::config::Config;
use crate::jobs::id;

/// Submits to a daemon, which is started if none runs.
pub(super) async fn submit(
    global: &GlobalArgs,
    config: &Config,
    models_dirs: &[PathBuf],
    method: &str,
    params: &impl Serialize,
) -> Result<(Client, String), Failure> {
    let id = id::new().map_err(Failure::new)?;
    let attempts = Cell::new(0u32);
    launch::ask(global, config, models_dirs, async |client: &Client| {
        let attempt = attempts.replace(attempts.get() + 1);
        let id_of = |attempt: u32| if attempt == 0 { id.clone() } else { format!("{id}-{attempt}") };
        if let Some(before) = attempt.checked_sub(1).map(id_of) {
            // Its answer was lost. What became of it is known by its id, and it is not done twice.
            match client.cancel(&before).await {
                Ok(job) if job.state == JobState::Finished => return Ok(before),
                Ok(_) => (),
                Err(error) if error.wire().is_some_and(|error| error.name == ErrorName::NotFound) => (),
                Err(error) => return Err(error),
            }
        }
        let id = id_of(attempt);
        let options = SubmitOptions { id: Some(&id), on_disconnect: OnDisconnect::Cancel };
        client.submit_with(method, params, options).await
    })
    .await
}

/// What comes of a job. Shows how far it is, and cancels it on Ctrl-C.
pub(super) async fn done<R: DeserializeOwned>(
    client: &Client,
    job: &str,
    mut stopped: Stopped,
) -> Result<R, Failure> {
    let mut meter = Meter::new();
    let outcome = tokio::select! {
        done = follow(client, job, &mut meter) => Some(done),
        () = stopped.wait() => None,
    };
    meter.end();
    if let Some(done) = outcome {
        return done;
    }
    tokio::select! {
        cancelled = client.cancel(job) => drop(cancelled?),
        // Again: a daemon that does not answer holds nobody up.
        () = stopped.wait() => (),
    }
    Err(Failure { text: format!("cancelled (job {job})"), code: 130 })
}

async fn follow<R: DeserializeOwned>(client: &Client, job: &str, meter: &mut Meter) -> Result<R, Failure> {
    let mut events = client.subscribe(job, 0).await?;
    while let Some(event) = events.next().await {
        meter.show(&event);
    }
    Ok(client.wait_for(job).await?)
}

/// Progress on stderr: a bar on a terminal, else a line now and then.
struct Meter {
    bar: ProgressBar,
    terminal: bool,
    shown_tenths: u32,
}

impl Meter {
    fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{msg:14} [{bar:32}] {pos}/{len}  {prefix}") {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar, terminal, shown_tenths: 0 }
    }

    fn show(&mut self, event: &Event) {
        match &event.kind {
            EventKind::Queued => self.bar.set_message("waiting"),
            EventKind::Started => {
                self.bar.set_message("started");
                // What was told before was of something else.
                self.shown_tenths = 0;
            }
            // Of what is one step the plugin alone tells how far it is.
            EventKind::Progress { plugin: Some(plugin), steps: 1, .. } => {
                let words = if plugin.what.is_empty() { &plugin.name } else { &plugin.what };
                self.bar.set_message(visible(words).into_owned());
                self.bar.set_length(100);
                self.bar.set_position((plugin.share * 100.0) as u64);
            }
            EventKind::Progress { stage, step, steps, eta_s, .. } => {
                self.bar.set_message(visible(stage.as_deref().unwrap_or_default()).into_owned());
                self.bar.set_length(u64::from(*steps));
                self.bar.set_position(u64::from(*step));
                let left = eta_s.map(|eta| format!("{eta:.0} s left")).unwrap_or_default();
                self.bar.set_prefix(left.clone());
                let tenths = step.saturating_mul(10) / (*steps).max(1);
                if !self.terminal && tenths > self.shown_tenths {
                    self.shown_tenths = tenths;
                    let own = stage
                        .as_deref()
                        .filter(|stage| ["hashing", "merging", "upscaling", "restoring"].contains(stage));
                    let what = own.unwrap_or("step");
                    say(&format!("{what} {step}/{steps}  {left}"));
                }
            }
            EventKind::Preview { .. }
            | EventKind::Finished
            | EventKind::Failed { .. }
            | EventKind::Cancelled => (),
        }
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

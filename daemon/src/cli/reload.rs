//! SIGHUP: the configuration is read again, and what can be changed while the daemon runs is changed.

use latentd_client::protocol::ConfigStatus;
use tracing::{error, info, warn};
use tracing_subscriber::EnvFilter;

use super::global::GlobalArgs;
use super::settings::{ServeArgs, drawing, job_limits, log_filter};
use crate::clock;
use crate::config::Config;
use crate::rpc::Daemon;

/// Changes what is logged.
pub(super) type SetFilter = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;

/// Where the configuration came from, and what it does not reach by itself.
pub(super) struct Reload {
    pub global: GlobalArgs,
    pub args: ServeArgs,
    pub set_filter: SetFilter,
}

impl Reload {
    /// Reads file, environment and flags again. What is wrong changes nothing. Log and `status` say what came of it. Reads
    /// a file.
    pub(super) fn run(&self, daemon: &Daemon) {
        let before = daemon.reloaded.borrow().clone().unwrap_or_default();
        let reloaded_at = Some(clock::now());
        let status = match self.apply(daemon) {
            Ok((changed, needs_restart)) => {
                info!(changed = changed.join(" "), "SIGHUP: configuration read again");
                if !needs_restart.is_empty() {
                    warn!(
                        settings = needs_restart.join(" "),
                        "these settings changed and wait for a restart"
                    );
                }
                ConfigStatus { reloaded_at, changed, needs_restart, error: None }
            }
            Err(reason) => {
                error!(reason, "SIGHUP: the configuration is wrong; the one before stays in force");
                ConfigStatus { reloaded_at, changed: Vec::new(), error: Some(reason), ..before }
            }
        };
        daemon.reloaded.send_replace(Some(status));
    }

    /// Gives the names of settings that were changed, and of those that wait for a restart.
    fn apply(&self, daemon: &Daemon) -> Result<(Vec<String>, Vec<String>), String> {
        let read = self.global.config().map_err(|failure| failure.text)?;
        let wanted = self.args.clone().over(read);
        let filter = log_filter(&wanted)?;
        let current = daemon.config.get();
        let differences = current.differences(&wanted).map_err(|error| error.to_string())?;
        let (needs_restart, changed): (Vec<_>, Vec<_>) =
            differences.into_iter().partition(|name| Config::NEEDS_RESTART.contains(&name.as_str()));
        let applied = wanted.keeping_what_needs_restart(&current);
        if changed.iter().any(|name| name == "log_level") {
            (self.set_filter)(filter)?;
        }
        daemon.jobs.set_limits(job_limits(&applied));
        daemon.studio.settings.set(drawing(&applied));
        daemon.studio.plugins.configure(applied.plugins.clone());
        daemon.config.set(applied);
        // Fewer may be kept now.
        daemon.jobs.purge();
        Ok((changed, needs_restart))
    }
}

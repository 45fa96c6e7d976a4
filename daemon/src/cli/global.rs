//! The flags that every command takes, and what they lead to.

use std::path::PathBuf;

use clap::Args;
use latentd_client::Client;

use super::failure::Failure;
use crate::config::Config;
use crate::paths;

/// What every command takes.
#[derive(Clone, Debug, Args)]
pub(super) struct GlobalArgs {
    /// The daemon's socket [default: $XDG_RUNTIME_DIR/latentd/latentd.sock; env: LATENTD_SOCKET]
    #[arg(long, global = true, value_name = "PATH", value_parser = paths::parser())]
    pub socket: Option<PathBuf>,
    /// The configuration file [default: $XDG_CONFIG_HOME/latentd/config.toml; env: LATENTD_CONFIG]
    #[arg(long, global = true, value_name = "FILE", value_parser = paths::parser())]
    pub config: Option<PathBuf>,
    /// Where job history, results and logs are [default: $XDG_STATE_HOME/latentd; env: LATENTD_STATE_DIR]
    #[arg(long, global = true, value_name = "DIR", value_parser = paths::parser())]
    pub state_dir: Option<PathBuf>,
}

impl GlobalArgs {
    /// The configuration file that is named, if one is. An empty variable is as if it were not set, as for settings.
    pub(super) fn config_file(&self) -> Result<Option<PathBuf>, Failure> {
        if self.config.is_some() {
            return Ok(self.config.clone());
        }
        let given = std::env::var_os("LATENTD_CONFIG").filter(|given| !given.is_empty());
        let file = given.map(|given| paths::absolute_from_here(given.as_ref())).transpose();
        file.map_err(|error| Failure::usage(format!("LATENTD_CONFIG: {error}")))
    }

    /// The configuration with these flags over it.
    pub(super) fn config(&self) -> Result<Config, Failure> {
        let mut config = Config::load(self.config_file()?.as_deref()).map_err(Failure::usage)?;
        if let Some(socket) = &self.socket {
            config.socket.clone_from(socket);
        }
        if let Some(state_dir) = &self.state_dir {
            config.state_dir.clone_from(state_dir);
        }
        Ok(config)
    }

    /// A connection to the daemon that runs.
    pub(super) async fn connect(&self) -> Result<Client, Failure> {
        Ok(Client::connect(Some(&self.config()?.socket)).await?)
    }
}

//! `latentd plugin-host`: the process that a plugin runs in. Hidden: the daemon starts it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::failure::Failure;
use crate::plugins;
use crate::sandbox::{self, Grants};

/// Flags of `plugin-host`.
#[derive(Debug, Args)]
pub(super) struct PluginHostArgs {
    #[command(flatten)]
    grants: Grants,
    /// The plugin's library
    library: PathBuf,
}

/// Does what the daemon asks for, over the socket that standard input is, until it goes away.
pub(super) fn run(args: &PluginHostArgs) -> Result<ExitCode, Failure> {
    sandbox::confine(&args.grants).map_err(Failure::new)?;
    plugins::run_guest(&args.library).map_err(Failure::new)?;
    Ok(ExitCode::SUCCESS)
}

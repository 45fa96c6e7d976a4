//! `latentd confined`: becomes another program, which may only what it was granted. Hidden: the daemon starts it.

use std::convert::Infallible;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use clap::Args;

use super::failure::Failure;
use crate::sandbox::{self, Grants};

/// Flags of `confined`.
#[derive(Debug, Args)]
pub(super) struct ConfinedArgs {
    #[command(flatten)]
    grants: Grants,
    /// What it becomes
    program: PathBuf,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Does not return, unless it fails.
pub(super) fn run(args: ConfinedArgs) -> Result<Infallible, Failure> {
    let ConfinedArgs { grants, program, arguments } = args;
    sandbox::confine(&grants).map_err(Failure::new)?;
    let error = Command::new(&program).args(arguments).exec();
    Err(Failure::new(format!("cannot run {}: {error}", program.display())))
}

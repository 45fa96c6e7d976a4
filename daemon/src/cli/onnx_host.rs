//! `latentd onnx-host`: the confined process that runs one ONNX graph. Hidden: the daemon starts it.

use std::os::fd::FromRawFd;
use std::process::ExitCode;

use clap::Args;

use super::failure::Failure;
use crate::sandbox::{self, Grants};
use crate::{onnx, process};

/// Flags of `onnx-host`.
#[derive(Debug, Args)]
pub(super) struct OnnxHostArgs {
    #[command(flatten)]
    grants: Grants,
    /// Threads that compute
    threads: usize,
    /// Bytes that the file may take in memory
    room: u64,
}

/// Serves its descriptors: 0 says what to run, 3 is the file, 4 where numbers stand.
pub(super) fn run(args: &OnnxHostArgs) -> Result<ExitCode, Failure> {
    sandbox::confine(&args.grants).map_err(Failure::new)?;
    process::share_arenas();
    // SAFETY: the daemon hands these over to whom it starts so, and nobody else here has them.
    let (socket, file, numbers) =
        unsafe { (FromRawFd::from_raw_fd(0), FromRawFd::from_raw_fd(3), FromRawFd::from_raw_fd(4)) };
    onnx::serve(socket, file, numbers, args.threads, args.room)
        .map_err(|error| Failure::new(format!("onnx-host: {error}")))?;
    Ok(ExitCode::SUCCESS)
}

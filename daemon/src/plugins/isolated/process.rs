//! A child as a process: this program once more, or a plugin that is an executable; confined.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use crate::plugins::search::is_library;
use crate::plugins::settings::Limits;
use crate::sandbox::{Confined, Process};

/// Starts a process for a plugin, with what both share.
pub(super) fn start(plugin: &Path, limits: &Limits, inherited: Vec<OwnedFd>) -> io::Result<Process> {
    let Limits { memory, network, reads, writes, .. } = limits.clone();
    let path = || OsString::from(plugin);
    let (arguments, reads, runs) = if is_library(plugin) {
        let reads = [plugin.to_owned()].into_iter().chain(reads).collect();
        (vec![OsString::from("plugin-host"), path()], reads, vec![])
    } else {
        // An interpreter and what it loads are among what may be read.
        let runs = [plugin.to_owned()].into_iter().chain(reads).collect();
        (vec![OsString::from("confined"), path()], vec![], runs)
    };
    let variables = vec![];
    Confined { arguments, reads, runs, writes, network, memory, inherited, variables }.start()
}

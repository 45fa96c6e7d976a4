//! Starts this executable once more, confined.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use super::grants::Grants;
use super::process::Process;
use super::spawn::{self, Program};

/// A process to be started: what it is, and what it may.
#[derive(Debug)]
pub(crate) struct Confined {
    /// Arguments of this executable: a hidden subcommand that takes [`Grants`] and calls [`confine`](super::confine)
    /// first of all, then what else it takes.
    pub arguments: Vec<OsString>,
    /// Files that it may read, and folders with all in them.
    pub reads: Vec<PathBuf>,
    /// Programs that it may become, and folders of such; the system's then, too. Without one it may become none. A
    /// library that it loads is only read.
    pub runs: Vec<PathBuf>,
    /// Folders that it may write into; the first is its `TMPDIR`.
    pub writes: Vec<PathBuf>,
    /// Whether it may use the network.
    pub network: bool,
    /// Bytes of its own that it may have, beside what it begins with. What it shares is not counted.
    pub memory: u64,
    /// What it finds as its descriptors 3, 4, …
    pub inherited: Vec<OwnedFd>,
    /// What its environment has beside `PATH`, `LANG`, `TMPDIR`.
    pub variables: Vec<(&'static str, OsString)>,
}

impl Confined {
    /// Starts it.
    pub(crate) fn start(self) -> io::Result<Process> {
        let Self { arguments, reads, runs, writes, network, memory, inherited, variables } = self;
        let (socket, theirs) = UnixStream::pair()?;
        let (stderr, their_stderr) = spawn::pipe()?;
        spawn::never_wait(&stderr)?;
        let temporary = writes.first().map(|folder| ("TMPDIR", folder.clone().into_os_string()));
        let grants = Grants {
            reads,
            runs,
            writes,
            network,
            memory,
            inherited: inherited.len() as u32,
            parent: std::process::id(),
        };
        let theirs = OwnedFd::from(theirs);
        let descriptors = [theirs.try_clone()?, theirs, their_stderr].into_iter().chain(inherited).collect();
        let usual = [("PATH", "/usr/bin:/bin".into()), ("LANG", "C.UTF-8".into())];
        let variables = usual.into_iter().chain(temporary).chain(variables);
        let program = Program {
            path: text(own_path())?,
            arguments: command_line(arguments, &grants).into_iter().map(text).collect::<io::Result<_>>()?,
            environment: variables.map(|(name, value)| variable(name, value)).collect::<io::Result<_>>()?,
            descriptors,
        };
        Ok(Process::new(spawn::spawn(program)?, socket, stderr))
    }
}

/// Where this executable is. Not its name, which may be another's by now.
fn own_path() -> OsString {
    let link = PathBuf::from("/proc/self/exe");
    let path = if link.exists() { Ok(link) } else { std::env::current_exe() };
    path.unwrap_or_else(|_| "latentd".into()).into_os_string()
}

/// The executable's name, the subcommand, its grants, what else it is told.
fn command_line(arguments: Vec<OsString>, grants: &Grants) -> Vec<OsString> {
    let mut line = vec![OsString::from("latentd")];
    line.extend(arguments);
    let place = line.len().min(2);
    line.splice(place..place, grants.flags());
    line
}

fn variable(name: &str, value: OsString) -> io::Result<CString> {
    let mut pair = OsString::from(name);
    pair.push("=");
    pair.push(value);
    text(pair)
}

fn text(text: OsString) -> io::Result<CString> {
    CString::new(text.into_vec()).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

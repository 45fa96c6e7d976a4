//! A plugin's side: the process that has loaded it. It is called over the socket, and what the plugin asks of its host goes back
//! the same way.

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use latentd_plugin_api::abi::latentd_status;
use rmpv::ValueRef;

use super::asking::Guest;
use super::called;
use super::coding::{Wrong, key};
use super::guest_call::GuestCall;
use super::guest_tables::TABLE;
use crate::plugins::manifest::{self, Manifest};
use crate::plugins::tables::{self, ENTRY, Tables};

/// Descriptors that it inherits: what it reads, what it writes.
const READ: i32 = 3;
const WRITTEN: i32 = 4;

/// The library, and what it says of itself.
static LIBRARY: OnceLock<(PathBuf, Manifest)> = OnceLock::new();
/// Its tables, once it is loaded.
static LOADED: OnceLock<Tables> = OnceLock::new();

/// Loads a plugin and does what its host asks for, until that goes away.
pub(crate) fn run(path: &Path) -> io::Result<()> {
    let socket = own_streams()?;
    // SAFETY: whoever started this process left the two descriptors, and nobody else has them.
    let (read, written) = unsafe { (OwnedFd::from_raw_fd(READ), OwnedFd::from_raw_fd(WRITTEN)) };
    let manifest = manifest::read(&std::fs::read(path)?).map_err(|why| io::Error::other(why.to_string()))?;
    LIBRARY.get_or_init(|| (path.to_owned(), manifest));
    Guest::begin(socket, (&read, &written), dispatch)?.serve()
}

/// Does a call: the first one loads the library.
fn dispatch(
    (table, function): (&str, &str),
    target: (*mut c_void, &GuestCall),
    args: &ValueRef<'_>,
) -> Result<(latentd_status, Vec<u8>), Wrong> {
    if (table, function) != (ENTRY, "init") {
        return called::dispatch(LOADED.get(), (table, function), target, args);
    }
    let (path, manifest) = LIBRARY.get().ok_or("there is no library")?;
    let tables = tables::begin(path, manifest, &TABLE)?;
    Ok((0, told(LOADED.get_or_init(|| tables))))
}

/// What a library has, for its host.
fn told(tables: &Tables) -> Vec<u8> {
    let (ids, functions) = tables.there();
    let mut out = vec![];
    rmp::encode::write_map_len(&mut out, 2).ok();
    let texts = |out: &mut Vec<u8>, name: &str, texts: &[&str]| {
        key(out, name);
        rmp::encode::write_array_len(out, texts.len() as u32).ok();
        for text in texts {
            key(out, text);
        }
    };
    texts(&mut out, "tables", &ids);
    texts(&mut out, "functions", &functions.iter().map(String::as_str).collect::<Vec<_>>());
    out
}

/// The socket that this process has as its standard input and output. What a library prints goes to the log from now on.
fn own_streams() -> io::Result<UnixStream> {
    // SAFETY: they are open from the beginning.
    let (input, errors) = unsafe { (BorrowedFd::borrow_raw(0), BorrowedFd::borrow_raw(2)) };
    let socket = UnixStream::from(input.try_clone_to_owned()?);
    let nothing = std::fs::File::open("/dev/null")?;
    // SAFETY: all of them are open.
    let moved = unsafe { libc::dup2(nothing.as_raw_fd(), 0) == 0 && libc::dup2(errors.as_raw_fd(), 1) == 1 };
    if moved { Ok(socket) } else { Err(io::Error::last_os_error()) }
}

//! How a plugin in a process of its own asks its host: what every function of its tables goes through.
//!
//! Everything that the plugin calls may be called within one of its own functions alone, on the thread that this was called on;
//! only the log, progress and whether the job was cancelled are for any thread.

use std::ffi::c_void;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, ThreadId};

use latentd_plugin_api::abi::{
    LATENTD_CANCELLED, LATENTD_FAILED, LATENTD_JOBS, LATENTD_MISUSE, latentd_call, latentd_status,
    latentd_text,
};
use rmpv::ValueRef;

use super::coding::{Arena, Coded, Fields, Wrong, key};
use super::frames::{Came, Frames};
use super::guest_call::GuestCall;
use super::messages::{self, Message};
use super::segment::{Shared, Side};

/// What stands for the host's own table.
pub(super) const HOST: &str = "host";

/// What does a call: of which table and function, with which instance, within which call, with which arguments. Its status, and a
/// map of what it gave beside.
pub(super) type Dispatch =
    fn((&str, &str), (*mut c_void, &GuestCall), &ValueRef<'_>) -> Result<(latentd_status, Vec<u8>), Wrong>;

/// The one plugin of this process, and how its host is asked.
pub(super) struct Guest {
    frames: Frames,
    read: Shared,
    written: Shared,
    main: ThreadId,
    dispatch: Dispatch,
    /// Calls that go on, one within the other: where they lie, and their levels.
    calls: Mutex<Vec<(usize, usize)>>,
}

static GUEST: OnceLock<Guest> = OnceLock::new();

impl Guest {
    /// The one of this process, whose calls are done so.
    pub(super) fn begin(
        socket: UnixStream,
        (read, written): (&OwnedFd, &OwnedFd),
        dispatch: Dispatch,
    ) -> io::Result<&'static Self> {
        let guest = Self {
            frames: Frames::new(socket),
            read: Shared::new(read.as_fd(), Side::Read)?,
            written: Shared::new(written.as_fd(), Side::Written)?,
            main: thread::current().id(),
            dispatch,
            calls: Mutex::default(),
        };
        Ok(GUEST.get_or_init(|| guest))
    }

    /// Does what the host asks for, until that goes away.
    pub(super) fn serve(&self) -> io::Result<()> {
        loop {
            match self.frames.receive(None, None)? {
                Came::Frame(frame) => self.called(messages::read(&frame).map_err(io::Error::other)?)?,
                Came::Nothing => (),
                Came::End => return Ok(()),
            }
        }
    }

    /// Does what a call says, and answers it.
    fn called(&self, message: Message<'_>) -> io::Result<()> {
        let Message::Call { level, table, function, instance, args } = message else {
            return Err(io::Error::other("the host answers what nobody asked"));
        };
        let call = GuestCall::new(level);
        self.calls().push((call.pointer().addr(), level));
        let done = (self.dispatch)((table, function), (instance as usize as *mut c_void, &call), &args);
        self.calls().pop();
        let (status, results, error) = match done {
            Ok((status, results)) => (status, results, None),
            Err(wrong) => (LATENTD_FAILED, vec![], Some(wrong)),
        };
        self.frames.send(messages::answer(status, &results, error.as_deref()), None)
    }

    fn calls(&self) -> MutexGuard<'_, Vec<(usize, usize)>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The level of a call that has not returned.
    fn level(&self, call: *mut latentd_call) -> Option<usize> {
        let address = call.addr();
        self.calls().iter().find(|(of, _)| *of == address).map(|(_, level)| *level)
    }
}

/// The call that a plugin names, if it is one that goes on, on this thread.
fn call_of<'a>(guest: &Guest, call: *mut latentd_call) -> Option<&'a GuestCall> {
    if thread::current().id() != guest.main {
        return None;
    }
    guest.level(call)?;
    // SAFETY: it goes on, so it is there.
    unsafe { call.cast::<GuestCall>().as_ref() }
}

/// Asks the host's service; `read` takes its results, which point into the message where it `lends`.
pub(super) fn ask(
    call: *mut latentd_call,
    (table, function): (&str, &str),
    write: impl FnOnce(&mut Vec<u8>),
    read: impl FnOnce(&Fields<'_, '_>, &Arena) -> Result<(), Wrong>,
    lends: bool,
) -> latentd_status {
    let Some(guest) = GUEST.get() else { return LATENTD_MISUSE };
    let Some(of) = call_of(guest, call) else { return LATENTD_MISUSE };
    let mut message = messages::ask(of.level, table, function);
    write(&mut message);
    if let Err(error) = guest.frames.send(message, None) {
        return failed(of, LATENTD_FAILED, &error.to_string());
    }
    loop {
        let frame = match guest.frames.receive(None, None) {
            Ok(Came::Frame(frame)) => frame,
            Ok(Came::Nothing) => continue,
            // The host is gone, and nobody wants to know what this leads to.
            Ok(Came::End) | Err(_) => exit(),
        };
        let (status, held) = match messages::read(&frame) {
            Ok(Message::Answer { status, results, error }) => {
                if status != 0 {
                    return failed(of, status, error.unwrap_or_default());
                }
                let taken = Fields::of(&results).and_then(|results| read(&results, &of.arena));
                (taken.map_or_else(|wrong| failed(of, LATENTD_FAILED, &wrong), |()| 0), lends)
            }
            Ok(message) => {
                if guest.called(message).is_err() {
                    exit();
                }
                continue;
            }
            Err(_) => exit(),
        };
        if held {
            of.arena.hold_frame(frame);
        }
        if status == 0 {
            of.error.borrow_mut().clear();
        }
        return status;
    }
}

/// Tells the host something that is not answered. From any thread.
pub(super) fn tell(
    call: *mut latentd_call,
    (table, function): (&str, &str),
    write: impl FnOnce(&mut Vec<u8>),
) -> bool {
    let Some(guest) = GUEST.get() else { return false };
    // What is of no call is of the outermost.
    let level = if call.is_null() { Some(0) } else { guest.level(call) };
    let Some(level) = level else { return false };
    let mut message = messages::note(level, table, function);
    write(&mut message);
    guest.frames.send(message, None).is_ok()
}

/// Ends the process, and runs nothing of what the plugin left for its end.
fn exit() -> ! {
    // SAFETY: it does not return.
    unsafe { libc::_exit(1) }
}

fn failed(call: &GuestCall, status: latentd_status, text: &str) -> latentd_status {
    text.clone_into(&mut call.error.borrow_mut());
    status
}

/// Why the last service of a call failed.
pub(super) fn error_of(call: *mut latentd_call) -> latentd_text {
    let call = GUEST.get().and_then(|guest| call_of(guest, call));
    call.map_or_else(
        || crate::plugins::host::text(""),
        |call| crate::plugins::host::text(&call.error.borrow()),
    )
}

/// Whether the job was cancelled.
pub(super) fn is_cancelled() -> bool {
    GUEST.get().is_some_and(|guest| guest.read.is_cancelled())
}

/// Where numbers lie that the host put or wants there.
pub(super) fn place(is_written: bool, from: u64) -> *mut u8 {
    let Some(guest) = GUEST.get() else { return std::ptr::null_mut() };
    if is_written { guest.written.at(from) } else { guest.read.at(from) }
}

/// How much of its work a call has done.
pub(super) fn tell_progress(call: *mut latentd_call, done: f64, what: latentd_text) -> latentd_status {
    if !(0.0..=1.0).contains(&done) {
        return LATENTD_MISUSE;
    }
    if is_cancelled() {
        return LATENTD_CANCELLED;
    }
    let write = |out: &mut Vec<u8>| {
        rmp::encode::write_map_len(out, 2).ok();
        key(out, "done");
        // SAFETY: the plugin lends a text.
        unsafe {
            done.write(out);
            key(out, "what");
            what.write(out);
        }
    };
    if tell(call, (LATENTD_JOBS, "progress"), write) { 0 } else { LATENTD_MISUSE }
}

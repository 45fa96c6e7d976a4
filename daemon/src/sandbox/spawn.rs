//! Starts programs, all of them from one thread.
//!
//! The kernel ends a confined process with *the thread* that started it, so that thread must be there as long as the
//! daemon is. A program is started by `posix_spawn`: a fork would copy the tables of all memory that the daemon has.

use std::ffi::{CString, c_char, c_short};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError, mpsc};

use crate::thread;

/// A program to be started.
pub(super) struct Program {
    pub path: CString,
    /// With the name that it has for itself.
    pub arguments: Vec<CString>,
    /// All that it has of an environment, each `NAME=VALUE`.
    pub environment: Vec<CString>,
    /// What it has open, from 0 on.
    pub descriptors: Vec<OwnedFd>,
}

type Answer = io::Result<libc::pid_t>;
type Order = (Program, mpsc::SyncSender<Answer>);

/// Starts a program in a session of its own, with no signal ignored or blocked; its number.
pub(super) fn spawn(program: Program) -> Answer {
    let (answer, answered) = mpsc::sync_channel(1);
    starter()?.send((program, answer)).map_err(io::Error::other)?;
    answered.recv().map_err(io::Error::other)?
}

/// The thread that starts programs, which begins with the first.
fn starter() -> io::Result<mpsc::Sender<Order>> {
    static STARTER: Mutex<Option<mpsc::Sender<Order>>> = Mutex::new(None);
    let mut starter = STARTER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(starter) = &*starter {
        return Ok(starter.clone());
    }
    let (orders, ordered) = mpsc::channel::<Order>();
    thread::start("sandbox", move || {
        // It ends with the process: one who could order is always there.
        for (program, answer) in ordered {
            answer.send(start(program)).ok();
        }
    })?;
    *starter = Some(orders.clone());
    Ok(orders)
}

fn start(program: Program) -> Answer {
    let Program { path, arguments, environment, descriptors } = program;
    // Out of the way: none of them may be a number that another is to have.
    let count = descriptors.len() as libc::c_int;
    let moved: Vec<OwnedFd> =
        descriptors.iter().map(|descriptor| moved(descriptor, count)).collect::<io::Result<_>>()?;
    drop(descriptors);
    let mut actions = Actions::new()?;
    for (number, descriptor) in (0..).zip(&moved) {
        actions.put(descriptor, number)?;
    }
    let attributes = Attributes::new()?;
    let list = |texts: &[CString]| -> Vec<*mut c_char> {
        texts.iter().map(|text| text.as_ptr().cast_mut()).chain([std::ptr::null_mut()]).collect()
    };
    let (arguments, environment) = (list(&arguments), list(&environment));
    let mut id = 0;
    // SAFETY: texts that end with NUL, in lists that end with null, all of which outlive the call; what it is told to do
    // was made above. It changes none of the texts.
    let failed = unsafe {
        libc::posix_spawn(
            &raw mut id,
            path.as_ptr(),
            &raw const actions.0,
            &raw const attributes.0,
            arguments.as_ptr(),
            environment.as_ptr(),
        )
    };
    done(failed)?;
    Ok(id)
}

/// The same with a number that is `least` or more.
fn moved(descriptor: &OwnedFd, least: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: the descriptor is open, and the new one is nobody's yet.
    let number = unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was made just now.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Marks a descriptor so that reading from it does not wait.
pub(super) fn never_wait(descriptor: &OwnedFd) -> io::Result<()> {
    // SAFETY: it is open, and only its flags are changed.
    match unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Both ends of a pipe, the one to read from first.
pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = io::pipe()?;
    Ok((read.into(), write.into()))
}

/// These functions give the number of an error.
fn done(failed: libc::c_int) -> io::Result<()> {
    if failed == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(failed)) }
}

/// What is done with descriptors before a program begins.
struct Actions(libc::posix_spawn_file_actions_t);

impl Actions {
    fn new() -> io::Result<Self> {
        let mut made = MaybeUninit::uninit();
        // SAFETY: it fills what is given, unless it fails.
        done(unsafe { libc::posix_spawn_file_actions_init(made.as_mut_ptr()) })?;
        // SAFETY: it was filled.
        Ok(Self(unsafe { made.assume_init() }))
    }

    fn put(&mut self, descriptor: &OwnedFd, number: libc::c_int) -> io::Result<()> {
        let from = descriptor.as_raw_fd();
        // SAFETY: it was initialised, and only notes two numbers.
        done(unsafe { libc::posix_spawn_file_actions_adddup2(&raw mut self.0, from, number) })
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: it was initialised, and nobody uses it any more.
        unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.0) };
    }
}

/// A session of its own, and signals as a program finds them that nobody prepared anything for.
struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    fn new() -> io::Result<Self> {
        let mut made = MaybeUninit::uninit();
        // SAFETY: as above.
        done(unsafe { libc::posix_spawnattr_init(made.as_mut_ptr()) })?;
        // SAFETY: it was filled.
        let mut made = Self(unsafe { made.assume_init() });
        let flags = libc::POSIX_SPAWN_SETSIGDEF as c_short | libc::POSIX_SPAWN_SETSIGMASK as c_short;
        let flags = flags | libc::POSIX_SPAWN_SETSID;
        let (mut all, mut none) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: the sets are filled before they are read, and copied from.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::sigemptyset(none.as_mut_ptr());
            done(libc::posix_spawnattr_setsigdefault(&raw mut made.0, all.as_ptr()))?;
            done(libc::posix_spawnattr_setsigmask(&raw mut made.0, none.as_ptr()))?;
            done(libc::posix_spawnattr_setflags(&raw mut made.0, flags))?;
        }
        Ok(made)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { libc::posix_spawnattr_destroy(&raw mut self.0) };
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::super::ended::Ended;
    use super::super::process::Process;
    use super::*;

    /// A shell that does this, with what it wrote to its descriptor 2 to be read.
    fn shell(script: &str, more: Vec<OwnedFd>) -> Process {
        let (socket, theirs) = UnixStream::pair().expect("a pair");
        let (stderr, write) = pipe().expect("a pipe");
        let theirs = OwnedFd::from(theirs);
        let text = |text: &str| CString::new(text).expect("no zero");
        let program = Program {
            path: text("/bin/sh"),
            arguments: ["sh", "-c", script].map(text).to_vec(),
            environment: vec![text("ONE=1")],
            descriptors: [theirs.try_clone().expect("copied"), theirs, write]
                .into_iter()
                .chain(more)
                .collect(),
        };
        Process::new(spawn(program).expect("started"), socket, stderr)
    }

    fn written(process: &Process) -> String {
        assert_eq!(process.wait(), Ended::Exit(0));
        let mut text = String::new();
        File::from(process.stderr.try_clone().expect("copied")).read_to_string(&mut text).expect("read");
        text
    }

    fn exists(id: u32) -> bool {
        std::path::Path::new(&format!("/proc/{id}")).exists()
    }

    #[test]
    fn a_program_has_what_it_is_given_and_nothing_else() {
        let said = |text: &str| {
            let (read, write) = pipe().expect("a pipe");
            File::from(write).write_all(text.as_bytes()).expect("written");
            read
        };
        // They are made in another order, so that numbers are others' before.
        let (second, first) = (said("second"), said("first"));
        let script = "env -u PWD -u _ -u SHLVL >&2; cat <&3 >&2; cat <&4 >&2";
        assert_eq!(written(&shell(script, vec![first, second])), "ONE=1\nfirstsecond");
        let text = written(&shell(
            "cut -d' ' -f1,5,6 /proc/self/stat >&2; echo $$ >&2; grep -E 'Sig(Blk|Ign)' /proc/self/status >&2",
            vec![],
        ));
        let words: Vec<&str> = text.split_whitespace().collect();
        // A group and a session of its own, and no signal is blocked or ignored.
        assert_eq!((words[1], words[2]), (words[3], words[3]), "{text}");
        let signals = |word: &str| u64::from_str_radix(word, 16).expect("a number");
        // Those of 32 and 33 are the C library's own.
        assert_eq!((signals(words[5]), signals(words[7]) & 0x7fff_ffff), (0, 0), "{text}");
    }

    #[test]
    fn its_end_is_known_without_waiting_and_leaves_nothing() {
        let process = shell("read line; exit 3", vec![]);
        assert_eq!(process.ended(), None);
        process.socket.shutdown(std::net::Shutdown::Write).expect("shut");
        assert_eq!(process.wait(), Ended::Exit(3));
        assert_eq!((process.ended(), process.wait()), (Some(Ended::Exit(3)), Ended::Exit(3)));
        assert!(!exists(process.id()), "no zombie");
        // It is no longer its number.
        process.kill();

        let process = shell("kill -SEGV $$", vec![]);
        assert_eq!(process.wait().to_string(), "signal 11 (SIGSEGV)");
        // While one waits, another ends it.
        let process = shell("read line", vec![]);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| process.wait());
            process.kill();
            assert_eq!(waits.join().expect("waited"), Ended::Signal(libc::SIGKILL));
        });
        let process = shell("trap '' TERM; read line", vec![]);
        let id = process.id();
        assert!(exists(id));
        drop(process);
        assert!(!exists(id));
    }

    #[test]
    fn what_cannot_be_started_is_an_error() {
        let program = Program {
            path: CString::new("/nothing/here").expect("no zero"),
            arguments: vec![],
            environment: vec![],
            descriptors: vec![],
        };
        assert_eq!(spawn(program).expect_err("nothing").kind(), io::ErrorKind::NotFound);
    }
}

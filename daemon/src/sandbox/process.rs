//! A confined process, as the daemon has it. It never outlives this, and leaves nothing behind.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::ended::Ended;

/// A process that was started, killed and waited for when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    /// Its descriptors 0 and 1 are the other end.
    pub socket: UnixStream,
    /// What it writes to descriptor 2; reading does not wait.
    pub stderr: OwnedFd,
    child: Arc<Child>,
}

/// Ends a process from wherever this is.
#[derive(Clone, Debug)]
pub(crate) struct Killer(Arc<Child>);

#[derive(Debug)]
struct Child {
    id: libc::pid_t,
    /// Known once it was waited for. Until then the number is no other's, so whoever uses it holds the lock.
    ended: Mutex<Option<Ended>>,
}

impl Process {
    pub(super) fn new(id: libc::pid_t, socket: UnixStream, stderr: OwnedFd) -> Self {
        Self { socket, stderr, child: Arc::new(Child { id, ended: Mutex::new(None) }) }
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id.unsigned_abs()
    }

    /// Ends it, if it has not ended.
    pub(crate) fn kill(&self) {
        self.child.kill();
    }

    /// What ends it, for others to have.
    pub(crate) fn killer(&self) -> Killer {
        Killer(Arc::clone(&self.child))
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&self) -> Option<Ended> {
        self.child.reap(libc::WNOHANG)
    }

    /// Waits until it has ended.
    pub(crate) fn wait(&self) -> Ended {
        self.child.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill();
        self.child.wait();
    }
}

impl Killer {
    /// Ends the process, if it has not ended.
    pub(crate) fn kill(&self) {
        self.0.kill();
    }
}

impl Child {
    fn lock(&self) -> MutexGuard<'_, Option<Ended>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kill(&self) {
        let ended = self.lock();
        if ended.is_none() {
            // Where the kernel could not deny it to have children, they are of its group.
            for id in [-self.id, self.id] {
                // SAFETY: it was not waited for, so the number is its own.
                unsafe { libc::kill(id, libc::SIGKILL) };
            }
        }
    }

    /// Waits with nothing locked, so that it can be killed meanwhile.
    fn wait(&self) -> Ended {
        if let Some(ended) = *self.lock() {
            return ended;
        }
        loop {
            // SAFETY: all-zero bytes are valid for it, and it is only written.
            let mut told: libc::siginfo_t = unsafe { std::mem::zeroed() };
            let id = self.id.unsigned_abs();
            // SAFETY: it writes into a struct that is ours, and leaves the child to be waited for.
            let waited =
                unsafe { libc::waitid(libc::P_PID, id, &raw mut told, libc::WEXITED | libc::WNOWAIT) };
            if waited == 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                break;
            }
        }
        self.reap(0).unwrap_or(Ended::Unknown)
    }

    /// How it ended, and its number is given back.
    fn reap(&self, options: libc::c_int) -> Option<Ended> {
        let mut ended = self.lock();
        if ended.is_none() {
            let mut status = 0;
            loop {
                // SAFETY: it writes into a number that is ours.
                match unsafe { libc::waitpid(self.id, &raw mut status, options) } {
                    0 => break,
                    1.. => *ended = Some(Ended::of_status(status)),
                    _ if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => continue,
                    _ => *ended = Some(Ended::Unknown),
                }
                break;
            }
        }
        *ended
    }
}

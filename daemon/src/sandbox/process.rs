//! A confined process, as the daemon has it. It never outlives this, and leaves nothing behind.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::ended::Ended;

/// A process that was started, killed and waited for when this is dropped. Others may end it while one waits.
#[derive(Debug)]
pub(crate) struct Process {
    /// Its descriptors 0 and 1 are the other end.
    pub socket: UnixStream,
    /// What it writes to descriptor 2; reading does not wait.
    pub stderr: OwnedFd,
    id: libc::pid_t,
    /// Known once it was waited for. Until then the number is no other's, so whoever uses it holds the lock.
    ended: Mutex<Option<Ended>>,
}

impl Process {
    pub(super) fn new(id: libc::pid_t, socket: UnixStream, stderr: OwnedFd) -> Self {
        Self { socket, stderr, id, ended: Mutex::new(None) }
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.id.unsigned_abs()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&self) -> Option<Ended> {
        self.reap(libc::WNOHANG)
    }

    /// Ends it, if it has not ended.
    pub(crate) fn kill(&self) {
        let ended = self.lock();
        if ended.is_none() {
            // Where the kernel could not deny it to have children, they are of its group.
            for id in [-self.id, self.id] {
                // SAFETY: it was not waited for, so the number is its own.
                unsafe { libc::kill(id, libc::SIGKILL) };
            }
        }
    }

    /// Waits until it has ended, with nothing locked, so that it can be ended meanwhile.
    pub(crate) fn wait(&self) -> Ended {
        if let Some(ended) = *self.lock() {
            return ended;
        }
        loop {
            // SAFETY: all-zero bytes are valid for it, and it is only written.
            let mut told: libc::siginfo_t = unsafe { std::mem::zeroed() };
            let options = libc::WEXITED | libc::WNOWAIT;
            // SAFETY: it writes into a struct that is ours, and leaves the child to be waited for.
            let waited = unsafe { libc::waitid(libc::P_PID, self.id(), &raw mut told, options) };
            if waited == 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                break;
            }
        }
        self.reap(0).unwrap_or(Ended::Unknown)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Ended>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
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

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        self.wait();
    }
}

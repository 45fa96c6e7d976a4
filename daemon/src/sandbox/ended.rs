//! How a process ended, for people.

use std::fmt;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By itself, with this code.
    Exit(i32),
    /// By this signal.
    Signal(i32),
    /// Nobody knows: it was another's to ask.
    Unknown,
}

impl Ended {
    /// What the system says when it is asked.
    pub(super) fn of_status(status: libc::c_int) -> Self {
        if libc::WIFSIGNALED(status) {
            Self::Signal(libc::WTERMSIG(status))
        } else {
            Self::Exit(libc::WEXITSTATUS(status))
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signal = match self {
            Self::Exit(code) => return write!(to, "exit code {code}"),
            Self::Unknown => return write!(to, "an end that nobody saw"),
            Self::Signal(signal) => *signal,
        };
        let name = match signal {
            libc::SIGSEGV => "SIGSEGV",
            libc::SIGBUS => "SIGBUS",
            libc::SIGABRT => "SIGABRT",
            libc::SIGFPE => "SIGFPE",
            libc::SIGILL => "SIGILL",
            libc::SIGTRAP => "SIGTRAP",
            libc::SIGKILL => "SIGKILL",
            libc::SIGTERM => "SIGTERM",
            libc::SIGINT => "SIGINT",
            libc::SIGHUP => "SIGHUP",
            libc::SIGPIPE => "SIGPIPE",
            libc::SIGALRM => "SIGALRM",
            libc::SIGXCPU => "SIGXCPU",
            libc::SIGXFSZ => "SIGXFSZ",
            libc::SIGSYS => "SIGSYS",
            other => return write!(to, "signal {other}"),
        };
        write!(to, "signal {signal} ({name})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_in_words() {
        for (status, expected) in [
            (0, "exit code 0"),
            (3 << 8, "exit code 3"),
            (11, "signal 11 (SIGSEGV)"),
            // With a core.
            (128 | 6, "signal 6 (SIGABRT)"),
            (9, "signal 9 (SIGKILL)"),
            (40, "signal 40"),
        ] {
            assert_eq!(Ended::of_status(status).to_string(), expected);
        }
    }
}

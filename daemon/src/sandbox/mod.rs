//! Processes that may only what they were granted: they run what is not ours, or read what strangers made.
//!
//! [`Confined::start`] starts this executable once more, with a hidden subcommand and nothing of the daemon's: a clean
//! environment, no descriptors but those that are handed over, a session of its own. The child calls [`confine`] first of
//! all, and from then on the kernel denies what is not in its [`Grants`]. It ends with the daemon, however that ends, and
//! is gone when its [`Process`] is dropped.
//!
//! What stands here knows nothing of what the processes do.
//!
//! | What is denied | By what |
//! |---|---|
//! | files that are not granted | Landlock |
//! | the network, other processes, new processes, what gets around the limit of memory | seccomp |
//! | more memory of its own than granted | `RLIMIT_DATA` |
//! | rights of root, of set-user-ID programs | capabilities given up, `no_new_privs` |
//!
//! What is not denied: to learn that a file exists and how large it is; to take all time of the processors; to begin many
//! threads; to have the kernel keep pages of files that it reads, and what it writes into memory that it was handed to share.
//! (A control group would bound these; none is made.)

#[cfg(target_os = "linux")]
mod calls;
mod confine;
mod ended;
#[cfg(target_os = "linux")]
mod files;
mod grants;
mod kernel;
mod limits;
mod process;
mod spawn;
mod start;

pub(crate) use confine::{confine, lacks};
pub(crate) use ended::Ended;
pub(crate) use grants::Grants;
pub(crate) use limits::allow_memory;
pub(crate) use process::Process;
pub(crate) use start::Confined;

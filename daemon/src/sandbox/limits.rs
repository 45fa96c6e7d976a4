//! How much a process may take, and rights that it gives up.

use std::fs;
use std::io;

/// What limits are told by.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
type Resource = libc::__rlimit_resource_t;
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
type Resource = libc::c_int;

/// Bytes of the first thread's stack: what grows by itself is not counted as memory of its own.
const STACK: u64 = 64 << 20;
/// Bytes of a file that it writes.
const FILE: u64 = 16 << 30;
/// Descriptors at a time.
const DESCRIPTORS: u64 = 256;

/// From now on no more than `memory` bytes are given to this process than it has: private memory that can be written,
/// heap, threads' stacks and libraries' variables alike. Nothing of it is ever written to a core file.
pub(super) fn set(memory: u64) -> io::Result<()> {
    let has = data_bytes();
    for (resource, most) in [
        (libc::RLIMIT_DATA, has.saturating_add(memory)),
        (libc::RLIMIT_STACK, STACK),
        (libc::RLIMIT_CORE, 0),
        (libc::RLIMIT_FSIZE, FILE),
        (libc::RLIMIT_NOFILE, DESCRIPTORS),
    ] {
        lower(resource, most)?;
    }
    // Queues of messages between processes take memory that is nobody's; and nobody is to be overtaken.
    #[cfg(target_os = "linux")]
    for resource in [libc::RLIMIT_MSGQUEUE, libc::RLIMIT_NICE, libc::RLIMIT_RTPRIO] {
        lower(resource, 0)?;
    }
    Ok(())
}

/// Of the memory that was granted, from now on no more than so many bytes beyond what this process has. May be said again.
pub(crate) fn allow_memory(bytes: u64) -> io::Result<()> {
    let mut limit = limit(libc::RLIMIT_DATA)?;
    limit.rlim_cur = data_bytes().saturating_add(bytes).min(limit.rlim_max);
    // SAFETY: it only reads a struct that is ours.
    done(unsafe { libc::setrlimit(libc::RLIMIT_DATA, &raw const limit) })
}

/// Bytes of what is counted that this process has already.
fn data_bytes() -> u64 {
    let told = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = told.split_whitespace().nth(5).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    // SAFETY: it asks for a number.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    pages * u64::try_from(page).unwrap_or(4096)
}

/// No more than `most`, for good.
fn lower(resource: Resource, most: u64) -> io::Result<()> {
    let limit = limit(resource)?;
    let least = limit.rlim_cur.min(limit.rlim_max).min(most);
    let limit = libc::rlimit { rlim_cur: least, rlim_max: least };
    // SAFETY: it only reads a struct that is ours.
    done(unsafe { libc::setrlimit(resource, &raw const limit) })
}

fn limit(resource: Resource) -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: it only writes into a struct that is ours.
    done(unsafe { libc::getrlimit(resource, &raw mut limit) })?;
    Ok(limit)
}

fn done(answer: libc::c_int) -> io::Result<()> {
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives up what root may and others may not, if this process has any of it: what it starts later gets none back.
#[cfg(target_os = "linux")]
pub(super) fn give_up_capabilities() -> io::Result<()> {
    /// The third version of two structs of the kernel's, for 64 capabilities.
    const VERSION: u32 = 0x2008_0522;
    let (header, none) = ([VERSION, 0], [0_u32; 6]);
    // SAFETY: the kernel reads 8 and 24 bytes, which both are.
    match unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

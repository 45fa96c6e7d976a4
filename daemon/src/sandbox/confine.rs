//! In the child: gives up all that was not granted.

use std::io;

use super::grants::Grants;
use super::{kernel, limits};

/// Gives up all that was not granted, for good; to be called first of all, while the process has one thread. What this
/// kernel could not deny, in words.
///
/// Fails, and then the process should end, if what every system has was refused; if the one who started it is gone; if it
/// has other threads, which would keep what they have.
pub(crate) fn confine(grants: &Grants) -> Result<Vec<String>, String> {
    end_with(grants.parent)?;
    close_behind(grants.inherited);
    std::env::set_current_dir("/").map_err(|error| format!("cannot go to /: {error}"))?;
    #[cfg(target_os = "linux")]
    {
        alone()?;
        set(libc::PR_SET_DUMPABLE, 0)?;
        set(libc::PR_SET_NO_NEW_PRIVS, 1)?;
        limits::give_up_capabilities().map_err(|error| format!("cannot give up capabilities: {error}"))?;
    }
    limits::set(grants.memory).map_err(|error| format!("cannot set limits: {error}"))?;
    deny(grants)
}

/// What this kernel lacks for [`confine`] to deny all that is not granted, in words; each says what is left undenied.
pub(crate) fn lacks() -> Vec<String> {
    #[cfg(target_os = "linux")]
    return kernel::left(kernel::landlock(), kernel::has_seccomp());
    #[cfg(not(target_os = "linux"))]
    kernel::left(0, false)
}

#[cfg(target_os = "linux")]
fn deny(grants: &Grants) -> Result<Vec<String>, String> {
    let (landlock, has_seccomp) = (kernel::landlock(), kernel::has_seccomp());
    if landlock > 0 {
        super::files::restrict(grants).map_err(|error| format!("Landlock: {error}"))?;
    }
    if has_seccomp {
        let exec = !grants.runs.is_empty();
        super::calls::restrict(grants.network, exec).map_err(|error| format!("seccomp: {error}"))?;
    }
    Ok(kernel::left(landlock, has_seccomp))
}

#[cfg(not(target_os = "linux"))]
fn deny(_: &Grants) -> Result<Vec<String>, String> {
    Ok(lacks())
}

/// From now on this process is ended with the thread that started it.
fn end_with(parent: u32) -> Result<(), String> {
    #[cfg(target_os = "linux")]
    set(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong)?;
    // It may have ended just before.
    if std::os::unix::process::parent_id() == parent {
        Ok(())
    } else {
        Err(format!("process {parent}, which started this one, is gone"))
    }
}

/// Closes what is open but 0, 1, 2, and those behind them that were handed over.
fn close_behind(inherited: u32) {
    /// More than any program has open; only for systems without `close_range`.
    const MOST: u32 = 65_536;
    let first = 3_u32.saturating_add(inherited);
    #[cfg(target_os = "linux")]
    // SAFETY: nobody has opened anything yet in this process, so what is closed is nobody's.
    if unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) } == 0 {
        return;
    }
    for descriptor in first..MOST {
        // SAFETY: as above; one that is not open is an error that changes nothing.
        unsafe { libc::close(descriptor as libc::c_int) };
    }
}

/// Whether this is the process's only thread: what is given up is given up by the thread that does so.
#[cfg(target_os = "linux")]
fn alone() -> Result<(), String> {
    let status = std::fs::read_to_string("/proc/self/status")
        .map_err(|error| format!("cannot read /proc/self/status: {error}"))?;
    let threads = status.lines().find_map(|line| line.strip_prefix("Threads:")).map(str::trim);
    match threads {
        Some("1") => Ok(()),
        _ => Err(format!("it has {} threads, and one is expected", threads.unwrap_or("no"))),
    }
}

#[cfg(target_os = "linux")]
fn set(option: libc::c_int, value: libc::c_ulong) -> Result<(), String> {
    let none: libc::c_ulong = 0;
    // SAFETY: these options take numbers alone.
    match unsafe { libc::prctl(option, value, none, none, none) } {
        0 => Ok(()),
        _ => Err(format!("prctl {option}: {}", io::Error::last_os_error())),
    }
}

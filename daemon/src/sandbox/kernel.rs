//! What this kernel can deny.

/// How much of Landlock there is; 0 where there is none. 4 knows of TCP, 6 of signals and abstract sockets.
#[cfg(target_os = "linux")]
pub(super) fn landlock() -> u32 {
    /// Asks for the version alone.
    const VERSION: u32 = 1;
    // SAFETY: with this flag it takes neither a pointer nor a size, and only answers.
    let answer =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0_usize, VERSION) };
    u32::try_from(answer).unwrap_or(0)
}

/// Whether system calls can be denied.
#[cfg(target_os = "linux")]
pub(super) fn has_seccomp() -> bool {
    let action = libc::SECCOMP_RET_ERRNO;
    // SAFETY: it reads a number, and only answers.
    let answer = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, std::ptr::from_ref(&action))
    };
    answer == 0
}

/// What that leaves undenied, in words.
pub(super) fn left(landlock: u32, has_seccomp: bool) -> Vec<String> {
    /// The first that has all of it that is used, of what seccomp cannot do as well.
    const WHOLE: u32 = 3;
    let mut left = vec![];
    if landlock == 0 {
        let what = "it can read, and change, every file that you can";
        left.push(format!("this system has no Landlock, or it is off: {what}"));
    } else if landlock < WHOLE {
        let what = "it can empty files that you can write to";
        left.push(format!("Landlock is of version {landlock}, {WHOLE} is needed: {what}"));
    }
    if !has_seccomp {
        let what = "it can start programs, use the network, and take more memory than it was granted";
        left.push(format!("this system cannot deny system calls (seccomp): {what}"));
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_is_said() {
        for (landlock, has_seccomp, expected) in [
            (9, true, &[][..]),
            (3, true, &[]),
            (2, true, &["Landlock is of version 2, 3 is needed"]),
            (0, true, &["no Landlock, or it is off"]),
            (1, false, &["version 1", "seccomp"]),
        ] {
            let left = left(landlock, has_seccomp);
            assert_eq!(left.len(), expected.len(), "{left:?}");
            for (text, words) in left.iter().zip(expected) {
                assert!(text.contains(words), "{text}");
            }
        }
    }
}

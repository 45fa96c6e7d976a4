//! Which system calls are denied, and why: by seccomp.
//!
//! All are allowed but those listed here, and those that came into the kernel after this was written. Arguments are
//! compared as the kernel reads them: in 32 bits where it reads an `int`. What is denied fails with `EPERM`, so that a
//! program can say so; what it must believe not to be there, with `ENOSYS`.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp as Op, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter, sock_filter,
};

/// Denied whatever is asked for, each with the reason. Numbers without a name are those of every architecture.
const NEVER: &[(&str, &[libc::c_long])] = &[
    (
        "what other processes have in memory and open",
        &[
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_process_madvise,
            libc::SYS_process_mrelease,
            libc::SYS_kcmp,
            libc::SYS_pidfd_open,
            libc::SYS_pidfd_getfd,
            libc::SYS_pidfd_send_signal,
            libc::SYS_move_pages,
            libc::SYS_migrate_pages,
        ],
    ),
    (
        "memory that no limit counts",
        &[libc::SYS_memfd_create, libc::SYS_memfd_secret, libc::SYS_shmget, libc::SYS_mq_open],
    ),
    (
        "what processes of the same user share by name or number",
        &[libc::SYS_shmat, libc::SYS_shmctl, libc::SYS_semget, libc::SYS_semctl, libc::SYS_msgget],
    ),
    (
        "calls by another door, which nothing here would see",
        &[libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register],
    ),
    (
        "much code of the kernel's that few have looked at",
        &[libc::SYS_userfaultfd, libc::SYS_bpf, libc::SYS_perf_event_open],
    ),
    ("the user's keys", &[libc::SYS_keyctl, libc::SYS_add_key, libc::SYS_request_key]),
    (
        "other views of files and processes, in which other rights hold",
        &[
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_chroot,
            libc::SYS_pivot_root,
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_mount_setattr,
            libc::SYS_move_mount,
            libc::SYS_open_tree,
            libc::SYS_fsopen,
            libc::SYS_fsconfig,
            libc::SYS_fsmount,
            libc::SYS_fspick,
        ],
    ),
    ("files by number, past all folders", &[libc::SYS_open_by_handle_at]),
    (
        "what files others use, and when",
        &[libc::SYS_inotify_init1, libc::SYS_inotify_add_watch, libc::SYS_fanotify_init],
    ),
    (
        "rights and times of files, which Landlock does not guard",
        &[
            libc::SYS_fchmodat,
            FCHMODAT2,
            libc::SYS_fchownat,
            libc::SYS_fchown,
            libc::SYS_setxattr,
            libc::SYS_lsetxattr,
            libc::SYS_removexattr,
            libc::SYS_lremovexattr,
            SETXATTRAT,
            REMOVEXATTRAT,
        ],
    ),
    (
        "the machine",
        &[
            libc::SYS_reboot,
            libc::SYS_kexec_load,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_delete_module,
            libc::SYS_swapon,
            libc::SYS_swapoff,
            libc::SYS_sethostname,
            libc::SYS_setdomainname,
            libc::SYS_settimeofday,
            libc::SYS_clock_settime,
            libc::SYS_clock_adjtime,
            libc::SYS_adjtimex,
            libc::SYS_acct,
            libc::SYS_syslog,
            libc::SYS_quotactl,
            libc::SYS_vhangup,
        ],
    ),
    #[cfg(target_arch = "x86_64")]
    (
        "the same by their old names",
        &[
            libc::SYS_fork,
            libc::SYS_vfork,
            libc::SYS_inotify_init,
            libc::SYS_chmod,
            libc::SYS_chown,
            libc::SYS_lchown,
            libc::SYS_utime,
            libc::SYS_utimes,
            libc::SYS_futimesat,
            libc::SYS_kexec_file_load,
            libc::SYS_iopl,
            libc::SYS_ioperm,
            libc::SYS_modify_ldt,
            libc::SYS_uselib,
        ],
    ),
];

const FCHMODAT2: libc::c_long = 452;
const SETXATTRAT: libc::c_long = 463;
const REMOVEXATTRAT: libc::c_long = 466;
/// The last call that was there when this was written. What x86-64 has for 32-bit pointers is above it, too.
const NEWEST: u32 = 466;

/// Calls on sockets that only a network has use for.
const NETWORK: [libc::c_long; 5] =
    [libc::SYS_bind, libc::SYS_connect, libc::SYS_listen, libc::SYS_accept, libc::SYS_accept4];

/// What signals go to is the first argument of these.
const SIGNALS: [libc::c_long; 5] = [
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
];

/// Whose first argument says whose limits or turns are changed; 0 is the caller.
const OWN: [libc::c_long; 5] = [
    libc::SYS_prlimit64,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setattr,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setscheduler,
];

/// Kinds of sockets between two, as `type & 15`: those that only ever reach each other.
const PAIRED: [libc::c_int; 2] = [libc::SOCK_STREAM, libc::SOCK_SEQPACKET];

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// What holds of one argument.
struct Is(u8, Op, u64);

impl Is {
    fn not(argument: u8, value: impl Into<i64>) -> Self {
        Self(argument, Op::Ne, u64::from(value.into() as u32))
    }

    fn just(argument: u8, value: impl Into<i64>) -> Self {
        Self(argument, Op::Eq, u64::from(value.into() as u32))
    }

    fn masked(argument: u8, mask: libc::c_int, value: libc::c_int) -> Self {
        Self(argument, Op::MaskedEq(u64::from(mask as u32)), u64::from(value as u32))
    }
}

/// Denies a call if all of that holds.
fn deny(rules: &mut Rules, call: libc::c_long, all: &[Is]) -> Result<(), String> {
    let condition = |Is(argument, op, value): &Is| {
        SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, op.clone(), *value)
    };
    let conditions = all.iter().map(condition).collect::<Result<Vec<_>, _>>();
    let rule = conditions.and_then(SeccompRule::new).map_err(|error| error.to_string())?;
    rules.entry(call).or_default().push(rule);
    Ok(())
}

/// What is denied to a process of this number.
fn rules(own: libc::pid_t, network: bool, exec: bool) -> Result<Rules, String> {
    // One without conditions always holds.
    let mut rules: Rules = NEVER.iter().flat_map(|(_, calls)| *calls).map(|call| (*call, vec![])).collect();
    let mut deny = |call, all: &[Is]| deny(&mut rules, call, all);
    if network {
        // Not to the user's other programs, whose sockets are files: Landlock does not guard them.
        deny(libc::SYS_socket, &[Is::not(0, libc::AF_INET), Is::not(0, libc::AF_INET6)])?;
    }
    deny(libc::SYS_socketpair, &[Is::not(0, libc::AF_UNIX)])?;
    for kind in (0..16).filter(|kind| !PAIRED.contains(kind)) {
        deny(libc::SYS_socketpair, &[Is::masked(1, 15, kind)])?;
    }
    for call in SIGNALS {
        deny(call, &[Is::not(0, own)])?;
    }
    for call in OWN {
        deny(call, &[Is::not(0, 0), Is::not(0, own)])?;
    }
    // Which kind of number the second is: a process's is 0 for one call and 1 for the other.
    for (call, process) in [(libc::SYS_setpriority, 0), (libc::SYS_ioprio_set, 1)] {
        deny(call, &[Is::not(0, process)])?;
        deny(call, &[Is::not(1, 0), Is::not(1, own)])?;
    }
    // Threads are begun, processes are not.
    deny(libc::SYS_clone, &[Is::masked(0, libc::CLONE_THREAD, 0)])?;
    // Memory that the limit does not count: shared with nobody, or a stack that grows.
    for kind in [libc::MAP_SHARED, libc::MAP_SHARED_VALIDATE] {
        let (mask, shared) = (libc::MAP_TYPE | libc::MAP_ANONYMOUS, kind | libc::MAP_ANONYMOUS);
        deny(libc::SYS_mmap, &[Is::masked(3, mask, shared)])?;
    }
    deny(libc::SYS_mmap, &[Is::masked(3, libc::MAP_GROWSDOWN, libc::MAP_GROWSDOWN)])?;
    // Signals to others when something can be read.
    for command in [libc::F_SETOWN, F_SETOWN_EX, F_SETSIG] {
        deny(libc::SYS_fcntl, &[Is::just(1, command)])?;
    }
    // The same by other names, and keys pressed in another's name.
    for request in [FIOSETOWN, SIOCSPGRP, libc::TIOCSTI as i64, TIOCLINUX] {
        deny(libc::SYS_ioctl, &[Is::just(1, request)])?;
    }
    // It ends with the daemon.
    deny(libc::SYS_prctl, &[Is::just(0, libc::PR_SET_PDEATHSIG)])?;
    // Asking is allowed.
    deny(libc::SYS_personality, &[Is::not(0, 0xffff_ffff_i64)])?;
    // Times of files by a path; those of an open file are its own.
    let by_path = SeccompCondition::new(1, SeccompCmpArgLen::Qword, Op::Ne, 0);
    let by_path = by_path.and_then(|by_path| SeccompRule::new(vec![by_path]));
    rules.insert(libc::SYS_utimensat, vec![by_path.map_err(|error| error.to_string())?]);
    if !network {
        rules.extend(NETWORK.map(|call| (call, vec![])));
        rules.insert(libc::SYS_socket, vec![]);
    }
    if !exec {
        rules.extend([libc::SYS_execve, libc::SYS_execveat].map(|call| (call, vec![])));
    }
    Ok(rules)
}

const F_SETSIG: libc::c_int = 10;
const F_SETOWN_EX: libc::c_int = 15;
const FIOSETOWN: i64 = 0x8901;
const SIOCSPGRP: i64 = 0x8902;
const TIOCLINUX: i64 = 0x541c;

/// Answers that a call which is newer than this does not exist. (That the numbers are this architecture's, the filters of
/// [`program`] see to.)
fn newer() -> BpfProgram {
    const LOAD_WORD: u16 = 0x20;
    const JUMP_IF_GREATER: u16 = 0x25;
    const RETURN: u16 = 0x06;
    let step = |code, jt, k| sock_filter { code, jt, jf: 0, k };
    vec![
        // The call's number stands first.
        step(LOAD_WORD, 0, 0),
        step(JUMP_IF_GREATER, 1, NEWEST),
        step(RETURN, 0, libc::SECCOMP_RET_ALLOW),
        step(RETURN, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
    ]
}

fn program(rules: Rules, error: libc::c_int) -> Result<BpfProgram, String> {
    let architecture = std::env::consts::ARCH.try_into().map_err(|error| format!("{error}"))?;
    let denied = SeccompAction::Errno(error as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, denied, architecture);
    filter.and_then(BpfProgram::try_from).map_err(|error| error.to_string())
}

/// From now on this thread, and what it starts, is denied all that. For good, so `no_new_privs` is set, too.
pub(super) fn restrict(network: bool, exec: bool) -> Result<(), String> {
    let own = std::process::id() as libc::pid_t;
    // Its flags are behind a pointer, where nothing here sees them; C libraries then use the call before it.
    let hidden = Rules::from([(libc::SYS_clone3, vec![])]);
    for filter in [program(rules(own, network, exec)?, libc::EPERM)?, program(hidden, libc::ENOSYS)?, newer()]
    {
        apply_filter(&filter).map_err(|error| format!("{error}: {}", io::Error::last_os_error()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_become_programs_of_a_size_that_the_kernel_takes() {
        for (network, exec) in [(false, false), (true, false), (false, true), (true, true)] {
            let rules = rules(1234, network, exec).expect("rules");
            assert_eq!(rules.contains_key(&libc::SYS_execve), !exec);
            assert_eq!(rules.get(&libc::SYS_socket).is_some_and(Vec::is_empty), !network);
            // Nothing is both denied always and under conditions.
            for (reason, calls) in NEVER {
                assert!(calls.iter().all(|call| rules[call].is_empty()), "{reason}");
            }
            assert!(program(rules, libc::EPERM).expect("a program").len() < 2000);
        }
    }
}

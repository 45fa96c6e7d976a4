//! Which files a process may open: by Landlock, whatever the rights of its user.

use std::fs;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr,
    RulesetError, Scope, make_bitflags, path_beneath_rules,
};

use super::grants::Grants;

/// The newest that is asked for; of an older kernel, as much as it has.
const KNOWN: ABI = ABI::V9;

/// Where systems have their programs and libraries.
const SYSTEM: [&str; 6] = ["/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin"];

/// What programs read of themselves and of the system. Not `/dev/zero`: mapped as shared, its pages are counted nowhere.
const READ_BY_ALL: [&str; 11] = [
    "/etc/ld.so.cache",
    "/etc/localtime",
    // Without it some do not begin.
    "/etc/ssl/openssl.cnf",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/sys/vm/overcommit_memory",
    "/sys/devices/system/cpu",
    "/dev/null",
    "/dev/urandom",
    "/dev/random",
];

/// What finds others by their names, and knows whom to trust.
const READ_FOR_NETWORK: [&str; 9] = [
    "/etc/resolv.conf",
    "/run/systemd/resolve",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/protocols",
    "/etc/ssl",
];

/// From now on this thread, and what it starts, opens only what is granted. Without seccomp this also denies it TCP and
/// signals to others.
pub(super) fn restrict(grants: &Grants) -> Result<(), RulesetError> {
    let read = make_bitflags!(AccessFs::{ReadFile | ReadDir});
    let run = read | AccessFs::Execute;
    let write = make_bitflags!(AccessFs::{
        WriteFile | Truncate | MakeReg | MakeDir | MakeSym | RemoveFile | RemoveDir | Refer
    });
    let mut rules =
        Ruleset::default().handle_access(AccessFs::from_all(KNOWN))?.scope(Scope::from_all(KNOWN))?;
    if !grants.network {
        rules = rules.handle_access(AccessNet::from_all(KNOWN))?;
    }
    let rules = rules.create()?;
    let system = if grants.runs.is_empty() { read } else { run };
    let rules = add(rules, &SYSTEM, system)?;
    let rules = add(rules, &READ_BY_ALL, read)?;
    let rules = add(rules, &settings_of_python(), read)?;
    let rules = add(rules, &["/dev/null"], read | AccessFs::WriteFile)?;
    let rules = if grants.network { add(rules, &READ_FOR_NETWORK, read)? } else { rules };
    let rules = add(rules, &grants.reads, read)?;
    let rules = add(rules, &grants.runs, run)?;
    add(rules, &grants.writes, read | write)?.restrict_self()?;
    Ok(())
}

/// Folders such as `/etc/python3.11`, to which the library of an interpreter has links.
fn settings_of_python() -> Vec<PathBuf> {
    let entries = fs::read_dir("/etc").into_iter().flatten().flatten();
    let is_one = |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(b"python");
    entries.filter(is_one).map(|entry| entry.path()).collect()
}

/// Adds what is there of the paths.
fn add(
    rules: RulesetCreated,
    paths: &[impl AsRef<Path>],
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    let paths = paths.iter().map(|path| PathBuf::from(path.as_ref()));
    rules.add_rules(path_beneath_rules(paths, access))
}

//! What this machine has: memory, cores, instruction sets. Read from Linux's `/proc`; elsewhere unknown.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes of memory this process may use: the machine's, or less where a control group or a limit of the process says so.
pub(crate) fn total_memory() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = [
        proc_bytes("/proc/meminfo", "MemTotal:"),
        group_limit(Path::new("/sys/fs/cgroup"), &groups),
        process_limit(),
    ];
    limits.into_iter().flatten().min()
}

/// The least that the process's control group, or any around it, allows; `groups` is what `/proc/self/cgroup` says. In
/// version 2 as in `0::/user.slice/app.scope`, in version 1 as in `5:memory:/app`.
fn group_limit(root: &Path, groups: &str) -> Option<u64> {
    let limits = groups.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, group) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (base, files): (_, &[&str]) = if controllers.is_empty() {
            (root.to_owned(), &["memory.max", "memory.high"])
        } else if controllers.split(',').any(|controller| controller == "memory") {
            (root.join("memory"), &["memory.limit_in_bytes"])
        } else {
            (root.to_owned(), &[])
        };
        // In a container the group is told as it is outside, where nothing of that name stands; the root is its own.
        let own = base.join(group.trim_start_matches('/'));
        let folders: Vec<_> =
            own.ancestors().take_while(|folder| folder.starts_with(&base)).map(Path::to_owned).collect();
        let read = |path: PathBuf| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        folders
            .into_iter()
            .flat_map(|folder| files.iter().map(move |file| folder.join(file)))
            .filter_map(read)
            .collect::<Vec<_>>()
    });
    limits.min()
}

/// What `ulimit -v` or `ulimit -d` leave to be taken beside what is taken already.
fn process_limit() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let left = |name: &str, taken: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
        let limit: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(limit.saturating_sub(proc_bytes("/proc/self/status", taken).unwrap_or_default()))
    };
    let both = [left("Max address space", "VmSize:"), left("Max data size", "VmData:")];
    both.into_iter().flatten().min()
}

/// Bytes of memory that are free to take.
pub(crate) fn available_memory() -> Option<u64> {
    proc_bytes("/proc/meminfo", "MemAvailable:")
}

/// Bytes of memory this process holds.
pub(crate) fn resident_memory() -> Option<u64> {
    proc_bytes("/proc/self/status", "VmRSS:")
}

/// The most bytes of memory this process ever held.
pub(crate) fn peak_memory() -> Option<u64> {
    proc_bytes("/proc/self/status", "VmHWM:")
}

/// The processor's name.
pub(crate) fn cpu_name() -> Option<String> {
    cpu_line("model name")
}

/// The instruction sets that matter to the kernels, as far as this processor has them.
pub(crate) fn cpu_features() -> Vec<String> {
    const RELEVANT: [&str; 8] =
        ["avx2", "fma", "f16c", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16"];
    let flags = cpu_line("flags").unwrap_or_default();
    let has = |name: &&str| flags.split_ascii_whitespace().any(|flag| flag == *name);
    RELEVANT.iter().filter(|name| has(name)).map(|name| (*name).to_owned()).collect()
}

fn cpu_line(key: &str) -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    line.split_once(':').map(|(_, value)| value.trim().to_owned())
}

/// A line such as `MemTotal:  24545672 kB`.
fn proc_bytes(file: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_control_group_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |file: &str, text: &str| {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, text).expect("written");
        };
        let limit = |groups: &str| group_limit(folder.path(), groups);
        assert_eq!(limit("0::/user.slice/app.scope\n"), None);
        write("user.slice/app.scope/memory.max", "max\n");
        write("user.slice/memory.max", "5000\n");
        write("memory.max", "9000\n");
        assert_eq!(limit("0::/user.slice/app.scope\n"), Some(5000));
        write("user.slice/app.scope/memory.high", "3000\n");
        assert_eq!(limit("0::/user.slice/app.scope\n"), Some(3000));
        assert_eq!(limit("0::/of/the/host\n"), Some(9000), "in a container");
        assert_eq!(limit("0::/\n"), Some(9000));
        write("memory/app/memory.limit_in_bytes", "700\n");
        assert_eq!(limit("4:cpu,cpuacct:/\n5:memory:/app\n0::/user.slice/app.scope\n"), Some(700));
        assert_eq!(limit("nonsense\n::\n"), Some(9000));
        assert_eq!(limit(""), None);
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(total_memory().is_none_or(|bytes| bytes > 1 << 20));
    }
}

//! What this machine has: memory, cores, instruction sets. Read from Linux's `/proc`; elsewhere unknown.

use std::fs;

/// Bytes of memory this process may use: the machine's, or less where a control group says so.
pub(crate) fn total_memory() -> Option<u64> {
    let machine = proc_bytes("/proc/meminfo", "MemTotal:");
    let group =
        fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    machine.into_iter().chain(group).min()
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

//! What the system says about this process.

use std::fs;

/// The memory that this process has in use now, where the system says it.
pub(crate) fn memory_bytes() -> Option<u64> {
    status_bytes("VmRSS:")
}

/// The most memory that this process has had, where the system says it.
pub(crate) fn peak_memory_bytes() -> Option<u64> {
    status_bytes("VmHWM:")
}

fn status_bytes(line: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let value = status.lines().find_map(|candidate| candidate.strip_prefix(line))?;
    value.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}

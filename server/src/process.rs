//! What the system says about this process, or another one, and what it lets this one have.

use std::{fmt::Display, fs, io};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Lets this process have as many files open as it may have at all. What it begins with is often 1024, for the sake of programs
/// that count no further; connections, uploads and decoders are files, and a server without any left answers no probe.
pub(crate) fn raise_file_limit() -> io::Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

/// The memory that this process has in use now, where the system says it.
pub(crate) fn memory_bytes() -> Option<u64> {
    status_bytes("self", "VmRSS:")
}

/// The most memory that this process has had, where the system says it.
pub(crate) fn peak_memory_bytes() -> Option<u64> {
    status_bytes("self", "VmHWM:")
}

/// Lets the peak begin anew at what is in use now, where the system can (proc(5), `clear_refs`).
pub(crate) fn reset_peak_memory() {
    // Nobody is harmed by a peak that stays what it was.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// A size in the status of the process with this number, or of this one (`self`).
pub(crate) fn status_bytes(id: impl Display, line: &str) -> Option<u64> {
    status(id, line)?.strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}

/// A count in the status of the process with this number.
pub(crate) fn status_count(id: impl Display, line: &str) -> Option<u64> {
    status(id, line)?.parse().ok()
}

fn status(id: impl Display, line: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    status.lines().find_map(|candidate| candidate.strip_prefix(line)).map(|value| value.trim().to_owned())
}

//! What becomes of memory that is freed.

/// Tells the C library to keep freed memory for the next allocation instead of giving it back to the system: to fetch and zero
/// its pages anew for every tensor takes a third of a small model's training step. For processes that train: what they hold at
/// most they hold to their end.
///
/// It reaches blocks below 1 GiB, before glibc 2.35 below 32 MiB; larger ones come from the system each alone and go back to it.
/// So do, outside the process's first thread, blocks that do not fit into a heap of 64 MiB, and heaps that became empty (glibc
/// `malloc/arena.c`). Does nothing but on Linux with glibc.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (parameter, value) in [
        // Larger blocks come from the system, each alone. The second value is refused before glibc 2.35.
        (libc::M_MMAP_THRESHOLD, 1 << 25),
        (libc::M_MMAP_THRESHOLD, 1 << 30),
        (libc::M_TRIM_THRESHOLD, libc::c_int::MAX),
    ] {
        // SAFETY: takes two numbers and its own lock; a value that it refuses changes nothing.
        unsafe { libc::mallopt(parameter, value) };
    }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    /// Pages that this thread has been given so far: `minflt`, the eighth field after the thread's name.
    fn n_page_faults() -> std::io::Result<u64> {
        let stat = std::fs::read_to_string("/proc/thread-self/stat")?;
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let n = fields.nth(7).and_then(|field| field.parse().ok());
        n.ok_or_else(|| std::io::Error::other(format!("no number of page faults in: {stat}")))
    }

    #[test]
    fn the_same_memory_is_given_again() -> std::io::Result<()> {
        keep_freed_memory();
        let page = 4096;
        let use_memory = || {
            let mut bytes = vec![0u8; 2000 * page];
            bytes.iter_mut().step_by(page).for_each(|byte| *byte = 1);
            std::hint::black_box(bytes);
        };
        use_memory();
        let before = n_page_faults()?;
        (0..10).for_each(|_| use_memory());
        let n = n_page_faults()? - before;
        // Left to itself the library fetches them once more: it keeps memory only after it has given such a block back.
        assert!(n < 100, "{n} pages were fetched for ten times 2000");
        Ok(())
    }
}

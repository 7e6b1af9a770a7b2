//! How memory is asked for, and what becomes of it when it is freed.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::team::is_together;

/// Bytes of a large page on the processors that have them in this size.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGE_PAGE: usize = 2 << 20;

/// `n` times a value, in large pages where the system has some: what is read from beginning to end in every step would otherwise
/// wait for the addresses of its pages.
pub(super) fn in_large_pages<T: Copy>(value: T, n: usize) -> Vec<T> {
    let mut values = Vec::with_capacity(n);
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let bytes = values.spare_capacity_mut().as_mut_ptr_range();
        let first = bytes.start.addr().next_multiple_of(LARGE_PAGE);
        let end = bytes.end.addr() / LARGE_PAGE * LARGE_PAGE;
        if let Some(n_bytes) = end.checked_sub(first).filter(|n| *n > 0) {
            let first = bytes.start.with_addr(first);
            // SAFETY: whole pages of memory that is allocated here and used by nobody yet; a hint, and one that may be refused.
            unsafe { libc::madvise(first.cast(), n_bytes, libc::MADV_HUGEPAGE) };
        }
    }
    values.resize(n, value);
    values
}

/// Zeros where nothing has been written yet. To zero a part just before it is written costs little, while to zero all of a large
/// tensor beforehand sends it to memory once more.
pub(super) fn zeroed(room: &mut [MaybeUninit<f32>]) -> &mut [f32] {
    room.fill(MaybeUninit::new(0.0));
    // SAFETY: every value has just been written.
    unsafe { written(room) }
}

/// `n` zeros, written by all threads where there are many and the threads have nothing smaller to do.
pub fn zeros(n: usize) -> Vec<f32> {
    /// What is worth it.
    const MANY: usize = 1 << 19;
    /// What a thread takes at once.
    const CHUNK: usize = 1 << 16;
    if n < MANY || is_together() { vec![0.0; n] } else { filled(n, CHUNK, |_, _| ()) }
}

/// `n` numbers that `fill` is given as zeros, in chunks of `n_chunk` with their numbers, on all threads.
pub(super) fn filled(n: usize, n_chunk: usize, fill: impl Fn(usize, &mut [f32]) + Send + Sync) -> Vec<f32> {
    let mut values = Vec::with_capacity(n);
    let chunks = values.spare_capacity_mut()[..n].par_chunks_mut(n_chunk.max(1));
    chunks.enumerate().for_each(|(i, room)| fill(i, zeroed(room)));
    // SAFETY: every chunk has been written.
    unsafe { values.set_len(n) };
    values
}

/// What has been written.
///
/// # Safety
/// Every value has been.
pub(super) unsafe fn written(room: &mut [MaybeUninit<f32>]) -> &mut [f32] {
    // SAFETY: the caller's promise, and `MaybeUninit` lies in memory as what it holds.
    unsafe { &mut *(std::ptr::from_mut(room) as *mut [f32]) }
}

/// Asks for a cache line before it is read; nothing happens where there is none.
#[inline(always)]
pub(super) fn prefetch(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        #[allow(unused_unsafe, reason = "newer toolchains declare it safe")]
        // SAFETY: a hint, which never faults; SSE, which it needs, is part of x86-64.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(line.cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

/// What is kept of it where models serve: enough for what a window's encoding takes again and again.
pub const SERVING_KEEPS_BYTES: usize = 256 << 20;

/// Tells the C library to keep freed memory for the next allocation instead of giving it back to the system: to fetch and zero its
/// pages anew for every tensor takes a third of a small model's training step. Of what is free at the end of a heap, `n_bytes` are
/// kept; what is free before something that is in use is kept anyhow.
///
/// It reaches blocks below 1 GiB, before glibc 2.35 below 32 MiB; larger ones come from the system each alone and go back to it.
/// So do, outside the process's first thread, blocks that do not fit into a heap of 64 MiB, and heaps that became empty (glibc
/// `malloc/arena.c`). Does nothing but on Linux with glibc.
pub fn keep_freed_memory(n_bytes: usize) {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let limit = libc::c_int::try_from(n_bytes).unwrap_or(libc::c_int::MAX);
        for (parameter, value) in [
            // Larger blocks come from the system, each alone. The second value is refused before glibc 2.35.
            (libc::M_MMAP_THRESHOLD, limit.min(1 << 25)),
            (libc::M_MMAP_THRESHOLD, limit.min(1 << 30)),
            (libc::M_TRIM_THRESHOLD, limit),
        ] {
            // SAFETY: takes two numbers and its own lock; a value that it refuses changes nothing.
            unsafe { libc::mallopt(parameter, value) };
        }
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    let _ = n_bytes;
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    #[test]
    fn large_memory_is_what_it_was_asked_to_be() {
        for n in [0, 1, 1000, 3 << 20] {
            assert_eq!(in_large_pages([7u8, 8], n), vec![[7, 8]; n]);
        }
    }

    /// Pages that this thread has been given so far: `minflt`, the eighth field after the thread's name.
    fn n_page_faults() -> std::io::Result<u64> {
        let stat = std::fs::read_to_string("/proc/thread-self/stat")?;
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let n = fields.nth(7).and_then(|field| field.parse().ok());
        n.ok_or_else(|| std::io::Error::other(format!("no number of page faults in: {stat}")))
    }

    #[test]
    fn the_same_memory_is_given_again() -> std::io::Result<()> {
        keep_freed_memory(usize::MAX);
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

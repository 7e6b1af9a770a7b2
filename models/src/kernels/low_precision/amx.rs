//! Tiles (Intel AMX). The compiler has no stable functions for them: they are written as instructions.

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::LazyLock;

use super::{GROUP_BYTES, Group, LINE_GROUPS, N_COLUMNS, Rows, Sums, TILE_ROWS};

/// Fewer rows are left to vectors: a tile of a few takes its time all the same.
pub(super) const MIN_ROWS: usize = 12;

/// All eight tiles are 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static CONFIGURATION: Configuration = Configuration {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// Bits of `edx` in leaf 7 of `cpuid`.
const AMX_BF16: u32 = 1 << 22;
const AMX_TILE: u32 = 1 << 24;
const AMX_INT8: u32 = 1 << 25;

/// Whether there are tiles of bytes.
pub(super) fn has_int8() -> bool {
    has(AMX_INT8)
}

/// Whether there are tiles of bf16.
pub(super) fn has_bf16() -> bool {
    has(AMX_BF16)
}

/// Whether the processor has the instructions, and the system lets this process use tiles.
fn has(feature: u32) -> bool {
    static FEATURES: LazyLock<u32> = LazyLock::new(|| {
        let features = __cpuid_count(7, 0).edx;
        if features & AMX_TILE != 0 && is_permitted() { features } else { 0 }
    });
    *FEATURES & feature != 0
}

/// Linux keeps the large registers of a process that asks for them alone.
#[cfg(target_os = "linux")]
fn is_permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: takes two numbers; a kernel that does not know them refuses.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn is_permitted() -> bool {
    false
}

/// Tiles that this thread has configured, until they are dropped: each time that takes as long as a small product. One at a time.
pub(super) struct Tiles(PhantomData<*const ()>);

thread_local! {
    /// Whether this thread has configured them.
    static IS_CONFIGURED: Cell<bool> = const { Cell::new(false) };
}

impl Tiles {
    /// # Safety
    /// There are tiles (`has`).
    ///
    /// # Panics
    /// When this thread has configured some already, which are not dropped yet: it is not to wait for the pool meanwhile, which may
    /// give it work that configures them.
    pub unsafe fn configure() -> Self {
        assert!(!IS_CONFIGURED.replace(true), "tiles are configured twice");
        // SAFETY: the caller has them; the configuration is one of palette 1.
        unsafe {
            asm!(
                "ldtilecfg [{configuration}]",
                configuration = in(reg) &raw const CONFIGURATION,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, readonly),
            );
        }
        Self(PhantomData)
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        IS_CONFIGURED.set(false);
        // SAFETY: this thread has them. Those that are in use are slow to switch away from.
        unsafe {
            asm!(
                "tilerelease",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, nomem),
            );
        }
    }
}

/// Where the factors and sums of a product in tiles are.
struct Place<T> {
    rows: *const u8,
    stride_bytes: usize,
    panel: *const Group,
    n_lines: usize,
    sums: *mut Sums<T>,
}

/// Goes through the rows by two tiles at a time, and one where no more are left.
fn by_tiles<T: Copy + Default>(
    rows: Rows<'_>,
    panel: &[Group],
    sums: &mut [Sums<T>],
    one: impl Fn(&Place<T>),
    two: impl Fn(&Place<T>),
) {
    let n_lines = panel.len() / LINE_GROUPS;
    assert!(
        panel.len() == n_lines * LINE_GROUPS
            && n_lines > 0
            && rows.holds(sums.len().next_multiple_of(TILE_ROWS), panel.len()),
        "{} groups of {} lines, every {}, for {} rows",
        panel.len(),
        rows.lines.len(),
        rows.stride,
        sums.len()
    );
    for (i, sums) in sums.chunks_mut(2 * TILE_ROWS).enumerate() {
        let rows = rows.from(i * 2 * TILE_ROWS);
        let run = |n_rows: usize, sums: *mut Sums<T>| {
            let place = Place {
                rows: rows.lines.as_ptr().cast(),
                stride_bytes: rows.stride * LINE_GROUPS * GROUP_BYTES,
                panel: panel.as_ptr(),
                n_lines,
                sums,
            };
            if n_rows > TILE_ROWS {
                two(&place);
            } else {
                one(&place);
            }
        };
        if sums.len().is_multiple_of(TILE_ROWS) {
            run(sums.len(), sums.as_mut_ptr());
        } else {
            // Tiles are written whole.
            let mut whole = [Sums([T::default(); N_COLUMNS]); 2 * TILE_ROWS];
            run(sums.len(), whole.as_mut_ptr());
            sums.copy_from_slice(&whole[..sums.len()]);
        }
    }
}

/// Declares a function that multiplies with one of the instructions for tiles.
macro_rules! multiply {
    ($(#[$meta:meta])* $name:ident, $sum:ty, $dot:literal) => {
        $(#[$meta])*
        ///
        /// # Safety
        /// The instruction is there: `has`.
        pub(super) unsafe fn $name(_: &Tiles, rows: Rows<'_>, panel: &[Group], sums: &mut [Sums<$sum>]) {
            let one = |place: &Place<$sum>| {
                // SAFETY: the caller has the instructions, and tiles; `by_tiles` has seen the rows, groups and sums of a tile. What
                // is in them means nothing before or after.
                unsafe {
                    asm!(
                        "tilezero tmm0",
                        "tilezero tmm1",
                        "2:",
                        "tileloadd tmm6, [{panel} + {step}]",
                        "tileloadd tmm4, [{rows} + {stride}]",
                        "tileloadd tmm7, [{panel} + {step} + 64]",
                        concat!($dot, " tmm0, tmm4, tmm6"),
                        concat!($dot, " tmm1, tmm4, tmm7"),
                        "add {rows}, 64",
                        "add {panel}, {tile_bytes}",
                        "dec {n_lines}",
                        "jnz 2b",
                        "tilestored [{sums} + {step}], tmm0",
                        "tilestored [{sums} + {step} + 64], tmm1",
                        step = in(reg) size_of::<Group>(),
                        tile_bytes = const size_of::<Group>() * LINE_GROUPS,
                        stride = in(reg) place.stride_bytes,
                        rows = inout(reg) place.rows => _,
                        panel = inout(reg) place.panel => _,
                        n_lines = inout(reg) place.n_lines => _,
                        sums = in(reg) place.sums,
                        out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                        out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                        options(nostack),
                    );
                }
            };
            let two = |place: &Place<$sum>| {
                // SAFETY: the same for two tiles.
                unsafe {
                    asm!(
                        "tilezero tmm0",
                        "tilezero tmm1",
                        "tilezero tmm2",
                        "tilezero tmm3",
                        "2:",
                        "tileloadd tmm6, [{panel} + {step}]",
                        "tileloadd tmm4, [{rows} + {stride}]",
                        "tileloadd tmm7, [{panel} + {step} + 64]",
                        concat!($dot, " tmm0, tmm4, tmm6"),
                        "tileloadd tmm5, [{more_rows} + {stride}]",
                        concat!($dot, " tmm1, tmm4, tmm7"),
                        concat!($dot, " tmm2, tmm5, tmm6"),
                        concat!($dot, " tmm3, tmm5, tmm7"),
                        "add {rows}, 64",
                        "add {more_rows}, 64",
                        "add {panel}, {tile_bytes}",
                        "dec {n_lines}",
                        "jnz 2b",
                        "tilestored [{sums} + {step}], tmm0",
                        "tilestored [{sums} + {step} + 64], tmm1",
                        "tilestored [{more_sums} + {step}], tmm2",
                        "tilestored [{more_sums} + {step} + 64], tmm3",
                        step = in(reg) size_of::<Group>(),
                        tile_bytes = const size_of::<Group>() * LINE_GROUPS,
                        stride = in(reg) place.stride_bytes,
                        rows = inout(reg) place.rows => _,
                        more_rows = inout(reg) place.rows.wrapping_add(TILE_ROWS * place.stride_bytes) => _,
                        panel = inout(reg) place.panel => _,
                        n_lines = inout(reg) place.n_lines => _,
                        sums = in(reg) place.sums,
                        more_sums = in(reg) place.sums.wrapping_add(TILE_ROWS),
                        out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                        out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                        options(nostack),
                    );
                }
            };
            by_tiles(rows, panel, sums, one, two);
        }
    };
}

multiply!(
    /// Unsigned bytes by signed ones.
    int8,
    i32,
    "tdpbusd"
);
multiply!(
    /// Pairs of bf16.
    bf16,
    f32,
    "tdpbf16ps"
);

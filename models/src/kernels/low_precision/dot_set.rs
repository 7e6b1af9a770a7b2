//! Families of instructions that multiply four bytes of each factor at once, made ready on a thread before they do.

#[cfg(target_arch = "x86_64")]
use super::amx;
use super::{Group, Rows, Sums};

/// A family of instructions.
///
/// # Safety
/// A value that has tiles exists only where the processor has them, as one of what `available` found there.
pub(super) unsafe trait DotSet: Copy + Send + Sync {
    /// What products add up to.
    type Sum: Copy + Default;
    /// Numbers of a line.
    const LINE: usize;

    /// Whether tiles are to be set up for it.
    #[cfg(target_arch = "x86_64")]
    fn has_tiles(self) -> bool;

    /// Sums of the products of rows with a panel.
    fn multiply(ready: &Ready<Self>, rows: Rows<'_>, panel: &[Group], sums: &mut [Sums<Self::Sum>]);
}

/// Instructions that are ready on this thread, until it is dropped. One at a time.
pub(super) struct Ready<S> {
    pub set: S,
    #[cfg(target_arch = "x86_64")]
    tiles: Option<amx::Tiles>,
}

impl<S: DotSet> Ready<S> {
    /// Makes them ready.
    ///
    /// # Panics
    /// When others with tiles are ready on this thread: it is not to wait for the pool while these are.
    pub fn new(set: S) -> Self {
        Self {
            set,
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the trait's promise: there are tiles.
            tiles: set.has_tiles().then(|| unsafe { amx::Tiles::configure() }),
        }
    }

    /// The tiles of a set that has them.
    #[cfg(target_arch = "x86_64")]
    pub fn tiles(&self) -> &amx::Tiles {
        match &self.tiles {
            Some(tiles) => tiles,
            None => unreachable!("no tiles were set up"),
        }
    }

    /// Sums of the products of rows with a panel.
    pub fn multiply(&self, rows: Rows<'_>, panel: &[Group], sums: &mut [Sums<S::Sum>]) {
        S::multiply(self, rows, panel, sums);
    }
}

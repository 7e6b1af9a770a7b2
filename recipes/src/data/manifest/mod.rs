//! Manifests: a line of JSON for each cut, in NeMo's names or as Lhotse's cuts.
//!
//! A bad row is skipped, with its file, line and reason; it never ends the reading. We write NeMo's names, which most tools
//! understand, with `id` and `speaker` beside them.

mod cut;
mod error;
mod interner;
mod lhotse;
mod lines;
mod nemo;
mod object;
mod reader;
mod reject;
mod writer;

pub use cut::{Cut, Extra};
pub use error::Error;
pub(crate) use error::check_any_good;
pub use reader::{Manifest, Needs, Reader, Row, read};
pub use reject::{Reason, Rejected};
pub use writer::Writer;

pub(crate) use interner::Interner;
pub(crate) use reader::row_of;
pub(crate) use reject::short;

#[cfg(test)]
mod tests;

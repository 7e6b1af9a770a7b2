//! The scores by which a recogniser is judged. All are sums over a corpus, never means of means.

mod alignment;
mod errors;

pub use alignment::{Alignment, Edit, align, edit_distance};
pub use errors::{Errors, character_errors, characters, word_errors, words};

//! From an encoded window to token ids: the step loop over a ragged batch of rows, the searches, and the rules
//! about what may be written next.
//! Mirrors openai/whisper `whisper/decoding.py` (c0d2f62); beam search ends as transformers' does.

mod ctc;
mod draft;
mod fallback;
mod language;
mod rules;
mod search;
mod session;

pub use ctc::{
    AlignedLabel, CtcHeard, CtcHypothesis, ctc_align, ctc_beam, ctc_collapse, ctc_greedy, ctc_log_probs,
};
pub use fallback::{LADDER, Thresholds, compression_ratio};
pub use language::detect_language;
pub(crate) use rules::check_finite;
pub use rules::{Rules, TimestampRules};
pub use search::Strategy;
pub(crate) use session::MAX_DRAFT;
pub use session::{Attempt, Session, Step, WindowRequest, WindowResult};

//! Recordings to models: how corpora become manifests of cuts, what training data looks like to a trainer, the losses, the training
//! loop and what it is made of, the log of what a run measures, and the scores by which recognisers and synthesisers are judged.

mod analysis_page;
mod average;
pub mod checkpoint;
mod comparison_card;
pub mod config;
pub mod data;
mod error;
pub mod evaluate;
pub mod evaluate_speech;
#[cfg(test)]
mod fixtures;
pub mod loader;
pub mod loss;
pub mod metrics;
pub mod metrics_log;
pub mod optim;
mod page;
mod pass;
pub mod plot;
pub mod prepare;
pub mod run;
mod run_card;
pub mod schedule;
pub mod shape;
mod sound_figure;
mod speech_page;
pub mod task;
pub mod text;
pub mod train;

pub use analysis_page::analysis_page;
pub use comparison_card::ComparisonCard;
pub use error::Error;
pub use page::table_page;
pub use speech_page::{SETTING_COLUMNS, score_rows, setting_row, speech_failures, speech_page};

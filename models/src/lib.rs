//! Features to hypotheses: architectures, layers, kernels and decoding. No HTTP, no datasets, no optimisers.
//!
//! Letters in shape comments: B batch, T frames, F features, D model width, H heads, U tokens, V vocabulary.

mod batch;
mod bundle;
mod bundled;
pub mod decode;
mod device;
mod error;
mod ggml;
pub mod kernels;
mod lora;
pub mod nn;
mod options;
pub mod params;
mod precision;
mod stored_tensor;
mod tokenizer;
mod transcriber;
pub mod transcript;
mod weights;
pub mod whisper;
mod worker;

pub use batch::{effective_length, padded_cost};
pub use bundle::{Architecture, Bundle, BundleSource, Description, MemoryBundle, NewVocabulary, NewWhisper};
pub use bundled::{BUNDLED, bundled};
pub use device::{Device, DeviceChoice};
pub use error::Error;
pub use ggml::write_ggml;
pub use lora::{ADAPTER_CONFIG, Adapter, Lora, add_updates, is_factor, write_adapter};
pub use options::{DecodeOptions, Task, Timestamps};
pub use precision::Precision;
pub use tokenizer::Tokenizer;
pub use transcriber::{Progress, TextToken, Transcriber};
pub use transcript::{
    Coverage, Gap, GapReason, Segment, TextPart, Transcribed, Transcript, Transcription, TranscriptionWorker,
    Word, Work,
};
pub use weights::{WeightDtype, Weights, write_weights};
pub use worker::{StepReport, Update, Worker};

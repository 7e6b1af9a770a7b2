//! Features to hypotheses: architectures, layers, kernels and decoding. No HTTP, no datasets, no optimisers.
//!
//! Letters in shape comments: B batch, T frames, F features, D model width, H heads, U tokens, V vocabulary.

mod batch;
mod bundle;
mod bundled;
pub mod canary;
mod ctc_head;
pub mod decode;
mod decoder;
mod device;
mod draft;
mod encoder;
mod encoder_block;
mod error;
pub mod fast_conformer;
pub mod flow_lm;
mod generation_config;
mod ggml;
pub mod kernels;
mod lora;
mod nemo;
pub mod nn;
mod options;
pub mod parakeet;
pub mod params;
mod precision;
mod row_means;
mod sentencepiece;
mod special_tokens;
mod speech_model;
mod stored_tensor;
mod synthesizer;
pub mod text;
mod text_encoder;
mod text_model;
mod text_translator;
mod tokenizer;
mod transcriber;
pub mod transcript;
mod vocoder;
pub mod vocos;
mod weights;
pub mod whisper;
mod worker;

pub use batch::{effective_length, padded_cost};
pub use bundle::{
    Architecture, Bundle, BundleSource, Description, MemoryBundle, NewConformer, NewVocabulary, NewWhisper,
    Part, TextUnit,
};
pub use bundled::{BUNDLED, bundled, bundled_for, bundled_speaker};
pub use ctc_head::{CTC_HEAD, CtcHead};
pub use decoder::{CrossCache, Decoder, RowCache, StepRow};
pub use device::{Device, DeviceChoice};
pub use draft::DraftWindow;
pub use encoder::Encoder;
pub use error::Error;
pub use generation_config::GenerationConfig;
pub use ggml::write_ggml;
pub use lora::{ADAPTER_CONFIG, Adapter, Lora, add_updates, is_factor, write_adapter};
pub use nemo::{import_nemo, is_nemo};
pub use options::{DecodeOptions, Task, Timestamps};
pub use precision::Precision;
pub use special_tokens::{SpecialTokens, TIMESTAMP_SECS, TRANSLATED_TO, Told, WordTimes};
pub use speech_model::SpeechModel;
pub use synthesizer::{
    Kind, MIN_VOICE_SECS, SpeakOptions, Speech, Spoken, SynthesisWorker, Synthesizer, VOCODER, Voice,
};
pub use text_encoder::{TEXT_ENCODER, TextEncoder, TextEncoderConfig};
pub use text_model::TextModel;
pub use text_translator::TextTranslator;
pub use tokenizer::Tokenizer;
pub use transcriber::{Progress, TextToken, Transcriber};
pub use transcript::{
    Coverage, Gap, GapReason, Segment, TextPart, Transcribed, Transcript, Transcription, TranscriptionWorker,
    Word, Work,
};
pub use vocoder::{Vocoder, VocoderStream};
pub use weights::{WeightDtype, Weights, write_weights};
pub use worker::{StepReport, Update, Worker};

//! Speech to the bytes of a file or a stream.
//!
//! [`Encoder`] takes samples as a synthesiser gives them and returns the bytes that are ready, in any [`AudioFormat`];
//! [`FileEncoder`] does that into a file, which states its length at the end; [`encode_bytes`] takes all samples at once. What the bytes are depends on the samples alone, not on how they were
//! cut. The lossy codecs come from rusty_mp3 and ropus; their containers, FLAC and WAV are written here.

mod encoder;
mod flac;
mod format;
mod mp3;
mod ogg;
mod opus;
#[cfg(test)]
mod tests;
mod wav;

pub use encoder::{Encoder, FileEncoder, encode_bytes};
pub use format::AudioFormat;
pub use wav::{pcm_s16le, wav_bytes, wav_header};

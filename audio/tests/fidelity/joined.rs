//! MP3 files joined byte by byte: everything that is there is decoded, and each file's padding is cut where it is known.

use audio::{DecodeAudio, Decoded, Error, Limits, Warning, decode_bytes};

use super::fixture;

/// Samples of a frame of MPEG 2, layer III.
const FRAME: usize = 576;

fn read(name: &str) -> Vec<u8> {
    std::fs::read(fixture(name)).expect("fixture")
}

/// One utterance with a LAME tag, 16 kHz.
fn utterance() -> Vec<u8> {
    read("../digits/utterance.mp3")
}

/// The same without its tags: frames of 288 bytes, each of 64 kbit/s.
fn bare_utterance() -> Vec<u8> {
    let frames = utterance().split_off(20);
    assert!(
        frames.len().is_multiple_of(288) && frames.starts_with(&[0xff, 0xf3]) && frames[13..17] == *b"Info"
    );
    frames[288..].to_vec()
}

fn decode(bytes: Vec<u8>) -> Decoded {
    decode_bytes(bytes, None, &DecodeAudio::default()).expect("decoded")
}

fn samples(bytes: Vec<u8>) -> Vec<f32> {
    let decoded = decode(bytes);
    assert_eq!(decoded.warnings, []);
    decoded.waveform.samples
}

#[test]
fn joined_files_give_what_each_gives_alone() {
    let (one, tone) = (utterance(), read("tone.mp3"));
    let (alone, alone_tone) = (samples(one.clone()), samples(tone.clone()));
    assert!(alone.len() > 2 * 16_000);
    let joined = decode([one.clone(), one.clone()].concat());
    assert_eq!(joined.waveform.samples, [alone.as_slice(), &alone].concat());
    assert_eq!((joined.warnings, joined.source.duration_secs), (Vec::new(), 2.0 * alone.len() as f64 / 16e3));
    let three = samples([one.as_slice(), &tone, &one].concat());
    assert_eq!(three, [alone.as_slice(), &alone_tone, &alone].concat());
    // Tags before and after each, as files from a shop have them: ID3v1 is 128 bytes.
    let id3v1 = [b"TAG".as_slice(), &[b' '; 125]].concat();
    assert_eq!(samples([one.as_slice(), &id3v1, &one, &id3v1].concat()), [alone.as_slice(), &alone].concat());
    assert_eq!(samples([one.as_slice(), &id3v1].concat()), alone);
}

/// Frames of MPEG 2.5 at 8 kHz, 8 kbit/s: nothing but a header.
#[test]
fn a_file_of_another_rate_is_converted() {
    let mut frame = vec![0xff, 0xe3, 0x18, 0xc0];
    frame.resize(72, 0);
    let n_alone = samples(utterance()).len();
    let joined = decode([utterance(), frame.repeat(20)].concat());
    assert_eq!(joined.warnings, [Warning::SampleRateChanged { sample_rate: 8_000 }]);
    assert_eq!(joined.waveform.samples.len(), n_alone + 2 * 20 * FRAME);
    assert_eq!(joined.source.sample_rate, 16_000);
}

#[test]
fn a_tag_that_understates_its_file_hides_nothing() {
    let (one, bare) = (utterance(), bare_utterance());
    let alone = samples(one.clone());
    let n_frames = bare.len() / 288;
    // Frames were added and the tag was left as it was. What goes missing is the padding, where the tag says it is.
    let joined = samples([one, bare.clone()].concat());
    assert_eq!(joined.len(), alone.len() + n_frames * FRAME);
    assert_eq!(joined[..alone.len()], alone);
    // The decoder goes on: what refers to earlier frames is found. A file's first frames refer to none.
    let again = samples(bare);
    let overlap = FRAME;
    assert_eq!(joined[alone.len() + overlap..], again[overlap..]);
}

/// Without a tag the demuxer guesses the length from the first frames: 75 frames of 288 bytes, where there are 69 and 9
/// shorter ones.
#[test]
fn a_guessed_length_cuts_nothing() {
    let (bare, bare_tone) = (bare_utterance(), read("bare.mp3"));
    let n_bare = samples(bare.clone()).len();
    assert_eq!(n_bare, bare.len() / 288 * FRAME);
    let n_tone = samples(bare_tone.clone()).len();
    assert_eq!(samples([bare.clone(), bare_tone].concat()).len(), n_bare + n_tone);
    // A tag in the middle is none of the sound, and its file keeps its delay and its padding: nobody reads it there.
    let joined = samples([bare, utterance()].concat());
    assert_eq!(joined.len(), 2 * n_bare);
}

#[test]
fn a_cut_last_file_is_told() {
    let one = utterance();
    let alone_secs = decode(one.clone()).source.duration_secs;
    let half = one[..one.len() / 2].to_vec();
    let decoded = decode([one.as_slice(), &half].concat());
    let decoded_secs = decoded.source.duration_secs;
    assert!((1.4..1.6).contains(&(decoded_secs / alone_secs)), "{decoded_secs} s");
    let expected_secs = Some(2.0 * alone_secs);
    assert_eq!(decoded.warnings, [Warning::Truncated { expected_secs, decoded_secs }]);
}

#[test]
fn limits_hold_for_all_files_together() {
    let one = utterance();
    let alone = decode(one.clone());
    let secs = alone.source.duration_secs;
    let n_bytes = 4 * alone.waveform.samples.len() as u64;
    let within = |limits: Limits| {
        let options = DecodeAudio { limits, ..DecodeAudio::default() };
        decode_bytes(one.repeat(3), None, &options)
    };
    let limits = Limits::default;
    let by_duration = |factor: f64| within(Limits { max_duration_secs: factor * secs, ..limits() });
    assert!(by_duration(3.01).is_ok());
    assert!(matches!(by_duration(2.5), Err(Error::TooLong { .. })));
    let by_memory = within(Limits { max_samples_bytes: 5 * n_bytes / 2, ..limits() });
    assert!(matches!(by_memory, Err(Error::TooLarge { .. })));
}

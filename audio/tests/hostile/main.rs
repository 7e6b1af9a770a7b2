//! Files that mean harm: truncated at every byte, damaged at random, with forged headers, and small ones that unpack
//! to hours. Each gives audio or a typed error, quickly, within the memory cap, and never a panic.
//!
//! In a binary of its own, because it counts every allocation; the cases run on one thread to keep the count theirs.
//! `--nocapture` shows the figures.
#![allow(clippy::print_stdout)]

mod bombs;

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use audio::{DecodeAudio, Decoded, Error, Limits, decode_bytes};

use bombs::{crc, flac_silence, mp3_silence, opus_silence, wav};

struct Counting;

static HELD_BYTES: AtomicUsize = AtomicUsize::new(0);
static PEAK_BYTES: AtomicUsize = AtomicUsize::new(0);

fn grow(bytes: usize) {
    let held = HELD_BYTES.fetch_add(bytes, Relaxed) + bytes;
    PEAK_BYTES.fetch_max(held, Relaxed);
}

// SAFETY: every call is passed on to the system's allocator unchanged; the counters do not touch the memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller keeps `GlobalAlloc`'s contract, which is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        HELD_BYTES.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        HELD_BYTES.fetch_sub(layout.size(), Relaxed);
        grow(new_size);
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Ten minutes, 64 MiB of samples.
fn limits() -> Limits {
    Limits { max_duration_secs: 600.0, max_samples_bytes: 64 << 20, max_cpu_secs: 5.0, ..Limits::default() }
}

/// Beyond the samples: buffers of demuxers and decoders.
const SPARE_BYTES: usize = 32 << 20;
const MAX_WALL: Duration = Duration::from_secs(1);

/// Decodes one hostile input; fails the test on a panic, slowness, or too much memory.
fn survive(what: &str, bytes: Vec<u8>) -> Result<Decoded, Error> {
    let (outcome, _) = survive_within(what, bytes, limits());
    outcome
}

/// The same within other limits; what it cost, besides, in words.
fn survive_within(what: &str, bytes: Vec<u8>, limits: Limits) -> (Result<Decoded, Error>, String) {
    let cap = usize::try_from(limits.max_samples_bytes).unwrap() + SPARE_BYTES;
    let options = DecodeAudio { limits, ..DecodeAudio::default() };
    let before = HELD_BYTES.load(Relaxed);
    PEAK_BYTES.store(before, Relaxed);
    let started = Instant::now();
    let outcome = decode_bytes(bytes, None, &options);
    let (wall, peak) = (started.elapsed(), PEAK_BYTES.load(Relaxed).saturating_sub(before));
    let cost = format!("{:.1} MB, {:.3} s", peak as f64 / 1e6, wall.as_secs_f64());
    assert!(peak <= cap, "{what}: {cost}");
    assert!(wall <= MAX_WALL, "{what}: {cost}");
    if let Ok(decoded) = &outcome {
        assert!(decoded.waveform.samples.iter().all(|sample| sample.is_finite()), "{what}");
        assert!(decoded.waveform.sample_rate > 0 && !decoded.waveform.samples.is_empty(), "{what}");
    }
    (outcome, cost)
}

fn fixtures() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/audio");
    let mut fixtures: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder)
        .expect("fixtures")
        .filter_map(Result::ok)
        .map(|entry| {
            (entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path()).expect("fixture"))
        })
        .filter(|(name, _)| !name.ends_with(".f32") && !name.ends_with(".s16"))
        .collect();
    fixtures.sort();
    assert!(fixtures.len() > 20);
    fixtures
}

fn fixture(name: &str) -> Vec<u8> {
    fixtures().into_iter().find(|(fixture, _)| fixture == name).expect("fixture").1
}

#[test]
fn hostile_files_are_survived() {
    let started = Instant::now();
    let stage = |name: &str| println!("{:6.2} s  {name}", started.elapsed().as_secs_f64());
    truncated_anywhere();
    stage("truncation");
    damaged_at_random();
    stage("damage");
    forged_headers();
    stage("forged headers");
    not_audio();
    stage("not audio");
    hours_of_silence();
    stage("hours of silence");
    chains_of_rates();
    stage("chains of rates");
}

fn truncated_anywhere() {
    for (name, bytes) in fixtures() {
        // Headers and packets: every byte. The bodies of uncompressed files are all alike: every 97th.
        let is_pcm =
            name.starts_with("pcm_") || name == "stereo.wav" || name == "tone.aiff" || name == "tone.caf";
        let mut lost = 0;
        for length in (0..bytes.len()).filter(|length| !is_pcm || *length < 512 || length % 97 == 0) {
            match survive(&format!("{name} cut to {length}"), bytes[..length].to_vec()) {
                // Cut within the padding of the last packets, the audio is complete.
                Ok(decoded) => {
                    lost += usize::from(decoded.warnings.is_empty() && decoded.source.duration_secs < 0.2);
                }
                Err(Error::Empty) => assert!(length < 200, "{name} cut to {length} counts as empty"),
                Err(_) => {}
            }
        }
        println!("{name}: {} lengths, {lost} short without a warning", bytes.len());
    }
}

/// A small generator with a fixed seed: failures can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % bound
    }
}

/// `HOSTILE_ROUNDS` and `HOSTILE_SEED` make it a longer or another search.
fn damaged_at_random() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<usize>().ok());
    let rounds = number("HOSTILE_ROUNDS").unwrap_or(600);
    let mut random = Random(number("HOSTILE_SEED").unwrap_or(1) as u64);
    for (name, bytes) in fixtures() {
        for round in 0..rounds {
            let mut damaged = bytes.clone();
            // Half the rounds aim at the headers, where a byte decides most.
            let reach = if round % 2 == 0 { damaged.len().min(300) } else { damaged.len() };
            let mut places = Vec::new();
            for _ in 0..1 + random.below(6) {
                // Single bytes, and runs that make a length enormous.
                let (place, value) = (random.below(reach), random.below(256) as u8);
                let (value, length) = [(value, 1), (0xff, 1), (0xff, 4), (0x7f, 4), (0, 4)][random.below(5)];
                let end = (place + length).min(damaged.len());
                damaged[place..end].fill(value);
                places.push((place, length, value));
            }
            let _ = survive(&format!("{name} damaged at {places:?}"), damaged);
        }
    }
}

fn forged_headers() {
    let body = [1_u8; 4_096];
    let zero_hz = survive("0 Hz", wav(1, 0, 4_096, &body));
    assert!(
        matches!(
            zero_hz,
            Err(Error::BadSampleRate { .. } | Error::Undecodable { .. } | Error::Unsupported { .. })
        ),
        "{zero_hz:?}"
    );
    let one_hz = survive("1 Hz", wav(1, 1, 4_096, &body));
    assert!(matches!(one_hz, Err(Error::BadSampleRate { sample_rate: 1, .. })), "{one_hz:?}");
    let many = survive("255 channels", wav(255, 16_000, 4_096, &body));
    assert!(
        matches!(
            many,
            Err(Error::TooManyChannels { .. } | Error::Unsupported { .. } | Error::Undecodable { .. })
        ),
        "{many:?}"
    );
    let huge = survive("4 GiB in 4 KiB", wav(1, 16_000, u32::MAX - 100, &body)).unwrap();
    assert_eq!(huge.waveform.samples.len(), 2_048);

    // FLAC that states blocks of 65535 samples, 8 channels, 2^36 samples.
    let mut flac = fixture("tone.flac");
    flac[8..12].copy_from_slice(&[0xff; 4]);
    let _ = survive("huge FLAC blocks", flac.clone());
    flac[18..26].copy_from_slice(&[0x0f, 0xa0, 0x0e, 0xff, 0xff, 0xff, 0xff, 0xff]);
    let _ = survive("endless FLAC", flac);

    // ID3 tags and FLAC blocks that claim a quarter of a gigabyte.
    let mut tagged = b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f".to_vec();
    tagged.extend(fixture("tone.mp3"));
    let _ = survive("huge ID3", tagged);
    let mut tagged = b"ID3\x04\x00\x00\x00\x00\x00\x20APIC\x7f\x7f\x7f\x7f\x00\x00".to_vec();
    tagged.extend(fixture("tone.mp3"));
    let _ = survive("huge ID3 frame", tagged);
    let mut tagged = b"fLaC\x04\xff\xff\xff".to_vec();
    tagged.extend(b"\xff\xff\xff\x7fabc");
    let _ = survive("huge Vorbis comment", tagged);

    // Thousands of joined MP3s, each of which states that it has one frame, 529 samples of delay and no padding.
    let mut tiny = fixture("tone.mp3")[45..45 + 2 * 216].to_vec();
    tiny[21..25].copy_from_slice(&1_u32.to_be_bytes());
    tiny[154..157].copy_from_slice(&[0, 529_u16.to_be_bytes()[0], 529_u16.to_be_bytes()[1]]);
    let joined = survive("tiny joined MP3s", tiny.repeat(4_000)).unwrap();
    assert_eq!(joined.waveform.samples.len(), 4_000 * (576 - 529));

    // Every size field of an MP4, and every element size of a WebM, blown up in turn.
    for name in ["aac.m4a", "alac.m4a", "opus.mp4", "video.mp4"] {
        let bytes = fixture(name);
        for at in 0..bytes.len().saturating_sub(8) {
            if bytes[at + 4..at + 8].iter().all(u8::is_ascii_alphanumeric) {
                for size in [0_u32, 1, 7, 0x7fff_ffff, u32::MAX] {
                    let mut forged = bytes.clone();
                    forged[at..at + 4].copy_from_slice(&size.to_be_bytes());
                    let _ = survive(&format!("{name} with size {size} at {at}"), forged);
                    // The counts of the tables follow the box header and its version.
                    if at + 16 <= bytes.len() {
                        let mut forged = bytes.clone();
                        forged[at + 12..at + 16].copy_from_slice(&size.to_be_bytes());
                        let _ = survive(&format!("{name} with count {size} at {at}"), forged);
                    }
                }
            }
        }
    }
    for name in ["opus.webm", "vorbis.webm", "video.mkv"] {
        let bytes = fixture(name);
        for at in 0..bytes.len().min(600) {
            for run in
                [[0xff_u8; 8], [0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], [0x08, 0, 0, 0, 0, 0, 0, 0]]
            {
                let mut forged = bytes.clone();
                let end = (at + 8).min(forged.len());
                forged[at..end].copy_from_slice(&run[..end - at]);
                let _ = survive(&format!("{name} with {run:x?} at {at}"), forged);
            }
        }
    }
}

fn not_audio() {
    assert!(matches!(survive("nothing", Vec::new()), Err(Error::Empty)));
    let text = "The quick brown fox jumps over the lazy dog.\n".repeat(1_000);
    assert!(matches!(survive("text", text.into_bytes()), Err(Error::Unsupported { .. })));
    assert!(matches!(
        survive("PDF", b"%PDF-1.7\n\xff\xfb\x90\x00".repeat(500)),
        Err(Error::Unsupported { .. })
    ));
    assert!(survive("zeros", vec![0; 1 << 20]).is_err());
    let mut random = Random(2);
    for round in 0..20 {
        let noise: Vec<u8> = (0..100_000).map(|_| random.below(256) as u8).collect();
        let _ = survive(&format!("noise {round}"), noise);
    }
}

fn hours_of_silence() {
    let too_long = |what: &str, bytes: Vec<u8>| {
        println!("{what}: {} KiB", bytes.len() >> 10);
        let outcome = survive(what, bytes).map(|decoded| (decoded.source, decoded.warnings));
        assert!(
            matches!(outcome, Err(Error::TooLong { .. } | Error::TooLarge { .. })),
            "{what}: {outcome:?}"
        );
    };
    too_long("8 h of FLAC, stated", flac_silence(16_000, 1, 8 * 3_600, true));
    too_long("8 h of FLAC, not stated", flac_silence(16_000, 1, 8 * 3_600, false));
    too_long("8 h of MP3", mp3_silence(8 * 3_600));
    too_long("8 h of Opus", opus_silence(8 * 3_600));
}

/// Chains whose links change the sample rate: joining them means converting, which can multiply their size and, for
/// rates without a common factor, takes transforms as long as the rates are high.
fn chains_of_rates() {
    let limits = Limits { max_samples_bytes: 20_000_000, ..limits() };
    let chain = |what: &str, rates: &[u32]| {
        let (outcome, cost) = survive_within(what, vorbis_chain(rates), limits.clone());
        println!("{what}: {} KiB, {cost}", vorbis_chain(rates).len() >> 10);
        outcome.map(|decoded| (decoded.source, decoded.warnings))
    };
    let first_then = |first: u32, then: u32, n: usize| [vec![first], vec![then; n]].concat();
    let grows = chain("60 links at 1 kHz after 768 kHz", &first_then(768_000, 1_000, 60));
    assert!(matches!(grows, Err(Error::BadSampleRate { .. })), "{grows:?}");
    let grows = chain("60 links at 4 kHz after 512 kHz", &first_then(512_000, 4_000, 60));
    assert!(matches!(grows, Err(Error::TooLarge { .. })), "{grows:?}");
    let flips = chain("60 links of two near rates", &[767_999, 768_000].repeat(30));
    assert!(matches!(flips, Err(Error::BadSampleRate { .. })), "{flips:?}");
    let flips = chain("60 links of two usual rates", &[44_100, 48_000].repeat(30));
    assert!(matches!(flips, Err(Error::Unsupported { .. })), "{flips:?}");
    // What is accepted: as many changes as there may be, and conversions with the longest transforms.
    let usual: Vec<u32> = [44_100, 48_000].into_iter().cycle().take(9).collect();
    let (_, warnings) = chain("9 links of two usual rates", &usual).unwrap();
    assert_eq!(warnings.len(), 4, "{warnings:?}");
    let dear = chain("5 links of coprime rates", &[65_521, 65_535, 65_534, 65_533, 65_532]).unwrap();
    assert_eq!(dear.1.len(), 4, "{dear:?}");
}

/// `vorbis.ogg` (16 kHz, a quarter of a second) once for each rate, its header stating that rate.
fn vorbis_chain(rates: &[u32]) -> Vec<u8> {
    let link = fixture("vorbis.ogg");
    let mut chain = Vec::new();
    for (number, rate) in rates.iter().enumerate() {
        let mut at = 0;
        while at < link.len() {
            let n_segments = usize::from(link[at + 26]);
            let body = at + 27 + n_segments;
            let end = body + link[at + 27..body].iter().map(|length| usize::from(*length)).sum::<usize>();
            let mut page = link[at..end].to_vec();
            page[14..18].copy_from_slice(&(number as u32 + 1).to_le_bytes());
            if at == 0 {
                // The identification header: packet type, "vorbis", version, channels, rate.
                page[27 + n_segments + 12..][..4].copy_from_slice(&rate.to_le_bytes());
            }
            page[22..26].fill(0);
            let check = crc(&page, 32, 0x04c1_1db7);
            page[22..26].copy_from_slice(&check.to_le_bytes());
            chain.extend(page);
            at = end;
        }
    }
    chain
}

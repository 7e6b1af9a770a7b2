//! Files that are recognisably something else.
//!
//! The demuxers search the first megabyte for anything that looks like an MPEG frame, and find one in many a file
//! that holds no audio. Naming those files first gives a better error, sooner.

/// Bytes that [`known_unsupported`] looks at.
pub(super) const SNIFFED_BYTES: usize = 512;

/// Names a file type that is certainly not decodable here, from its first bytes.
pub(super) fn known_unsupported(start: &[u8]) -> Option<&'static str> {
    const MAGIC: [(&[u8], &str); 21] = [
        (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "ASF/WMA"),
        (b"#!AMR", "AMR"),
        (b"#!SILK", "SILK"),
        (b"FLV\x01", "Flash video"),
        (b"MThd", "MIDI"),
        (b"wvpk", "WavPack"),
        (b"MAC ", "Monkey's Audio"),
        (b"DSD ", "DSD"),
        (b".snd", "Sun AU"),
        (b"TTA1", "True Audio"),
        (b".RMF", "RealMedia"),
        (b"\x00\x00\x01\xba", "an MPEG program stream"),
        (b"%PDF", "a PDF document"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"\x1f\x8b", "a gzip archive"),
        (b"Rar!", "a RAR archive"),
        (b"\x89PNG", "a PNG image"),
        (b"\xff\xd8\xff\xe0", "a JPEG image"),
        (b"\xff\xd8\xff\xe1", "a JPEG image"),
        (b"GIF8", "a GIF image"),
        (b"\x7fELF", "a program"),
    ];
    if let Some((_, name)) = MAGIC.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Some(name);
    }
    if start.starts_with(b"RIFF") && start.get(8..12).is_some_and(|kind| kind == b"AVI " || kind == b"WEBP") {
        return Some("a RIFF file without WAVE audio");
    }
    if start.first() == Some(&0x47) && start.get(188) == Some(&0x47) && start.get(376) == Some(&0x47) {
        return Some("an MPEG transport stream");
    }
    let is_text = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~');
    if start.len() >= 16 && start.iter().all(is_text) {
        return Some("text");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_not_audio_and_leaves_audio_alone() {
        assert_eq!(known_unsupported(b"%PDF-1.7"), Some("a PDF document"));
        assert_eq!(known_unsupported(b"<!DOCTYPE html><html></html>"), Some("text"));
        assert_eq!(
            known_unsupported(b"RIFF\x00\x00\x00\x00AVI LIST"),
            Some("a RIFF file without WAVE audio")
        );
        assert_eq!(known_unsupported(b"RIFF\x00\x00\x00\x00WAVEfmt "), None);
        assert_eq!(known_unsupported(b"OggS\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), None);
        assert_eq!(known_unsupported(b""), None);
    }
}

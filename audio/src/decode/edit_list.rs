//! Edit lists of MP4 files (ISO 14496-12, 8.6.6): which part of a track is presented.
//!
//! AAC in MP4 begins with about a thousand samples of encoder delay and ends in padding; the edit list is what
//! says so. Anything unexpected in here is ignored: the demuxer judges the file.

use std::io::{self, SeekFrom};

use symphonia::core::io::MediaSource;

/// Boxes looked at before giving up, over all levels.
const MAX_BOXES: usize = 4_096;

/// The presented part of one track.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Edit {
    pub(super) track_id: u32,
    /// Where in the track's media the presentation starts.
    pub(super) start_secs: f64,
    /// How long it is; `None` for the rest of the track.
    pub(super) duration_secs: Option<f64>,
}

/// The edits of all tracks that have exactly one; empty for files that are not MP4.
pub(super) fn read(source: &mut dyn MediaSource) -> io::Result<Vec<Edit>> {
    let Some(file_end) = source.byte_len().filter(|_| source.is_seekable()) else { return Ok(Vec::new()) };
    let mut boxes = Boxes { source, n_left: MAX_BOXES };
    if boxes.next(0, file_end)?.is_none_or(|first| &first.kind != b"ftyp") {
        return Ok(Vec::new());
    }
    let Some(movie) = boxes.find(0, file_end, b"moov")? else { return Ok(Vec::new()) };
    let Some(movie_scale) = boxes.timescale(&movie, b"mvhd")? else { return Ok(Vec::new()) };
    let mut edits = Vec::new();
    let mut at = movie.body;
    while let Some(child) = boxes.next(at, movie.end)? {
        at = child.end;
        if &child.kind == b"trak"
            && let Some(edit) = boxes.edit(&child, movie_scale)?
        {
            edits.push(edit);
        }
    }
    Ok(edits)
}

/// One box: its kind and where its body lies.
struct BoxHeader {
    kind: [u8; 4],
    body: u64,
    end: u64,
}

struct Boxes<'a> {
    source: &'a mut dyn MediaSource,
    n_left: usize,
}

impl Boxes<'_> {
    /// The header of the box at `at`; `None` at the end of the parent, or where no box fits.
    fn next(&mut self, at: u64, parent_end: u64) -> io::Result<Option<BoxHeader>> {
        if at.saturating_add(8) > parent_end || self.n_left == 0 {
            return Ok(None);
        }
        self.n_left -= 1;
        let header: [u8; 8] = self.read_at(at)?;
        let (size, kind) = header.split_at(4);
        let kind = <[u8; 4]>::try_from(kind).unwrap_or_default();
        let (body, size) = match be_u32(size) {
            0 => (at + 8, parent_end - at),
            1 => (at + 16, u64::from_be_bytes(self.read_at(at + 8)?)),
            size => (at + 8, u64::from(size)),
        };
        let end = at.saturating_add(size);
        Ok((end >= body && end <= parent_end).then_some(BoxHeader { kind, body, end }))
    }

    fn find(&mut self, from: u64, end: u64, kind: &[u8; 4]) -> io::Result<Option<BoxHeader>> {
        let mut at = from;
        while let Some(child) = self.next(at, end)? {
            if &child.kind == kind {
                return Ok(Some(child));
            }
            at = child.end;
        }
        Ok(None)
    }

    fn edit(&mut self, track: &BoxHeader, movie_scale: f64) -> io::Result<Option<Edit>> {
        let Some(header) = self.find(track.body, track.end, b"tkhd")? else { return Ok(None) };
        let Some(media) = self.find(track.body, track.end, b"mdia")? else { return Ok(None) };
        let Some(container) = self.find(track.body, track.end, b"edts")? else { return Ok(None) };
        let Some(list) = self.find(container.body, container.end, b"elst")? else { return Ok(None) };
        let Some(media_scale) = self.timescale(&media, b"mdhd")? else { return Ok(None) };
        let id_at = if self.version(&header)? == 1 { 20 } else { 12 };
        let track_id = u32::from_be_bytes(self.read_at(header.body + id_at)?);
        let is_long = self.version(&list)? == 1;
        let n_entries = u32::from_be_bytes(self.read_at(list.body + 4)?);
        let entry = list.body + 8;
        let (duration, start) = if is_long {
            (u64::from_be_bytes(self.read_at(entry)?), i64::from_be_bytes(self.read_at(entry + 8)?))
        } else {
            let start = i32::from_be_bytes(self.read_at(entry + 4)?);
            (u64::from(u32::from_be_bytes(self.read_at(entry)?)), i64::from(start))
        };
        // Several edits, or an empty one (start -1), rearrange the track: not what a recording does.
        if n_entries != 1 || start < 0 || list.end > container.end {
            return Ok(None);
        }
        let duration_secs = (duration > 0).then(|| duration as f64 / movie_scale);
        Ok(Some(Edit { track_id, start_secs: start as f64 / media_scale, duration_secs }))
    }

    /// Ticks per second of an `mvhd` or `mdhd`, which lie alike; `None` when absent or zero.
    fn timescale(&mut self, parent: &BoxHeader, kind: &[u8; 4]) -> io::Result<Option<f64>> {
        let Some(header) = self.find(parent.body, parent.end, kind)? else { return Ok(None) };
        let at = if self.version(&header)? == 1 { 20 } else { 12 };
        let ticks = u32::from_be_bytes(self.read_at(header.body + at)?);
        Ok((ticks > 0).then(|| f64::from(ticks)))
    }

    fn version(&mut self, header: &BoxHeader) -> io::Result<u8> {
        Ok(self.read_at::<1>(header.body)?[0])
    }

    fn read_at<const N: usize>(&mut self, at: u64) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.source.seek(SeekFrom::Start(at))?;
        self.source.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

fn be_u32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |value, byte| (value << 8) | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn make_box(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let size = u32::try_from(body.len() + 8).unwrap();
        [&size.to_be_bytes(), &kind[..], body].concat()
    }

    fn words(values: &[u32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_be_bytes()).collect()
    }

    fn movie(entries: &[u32]) -> Vec<u8> {
        let list = make_box(b"edts", &make_box(b"elst", &words(entries)));
        let header = make_box(b"tkhd", &words(&[0, 0, 0, 7, 0]));
        let media = make_box(b"mdia", &make_box(b"mdhd", &words(&[0, 0, 0, 16_000, 0])));
        let track = make_box(b"trak", &[header, list, media].concat());
        let movie = make_box(b"moov", &[make_box(b"mvhd", &words(&[0, 0, 0, 1_000])), track].concat());
        [make_box(b"ftyp", b"isom"), movie].concat()
    }

    #[test]
    fn reads_a_single_edit() {
        let edits = read(&mut Cursor::new(movie(&[0, 1, 250, 1_024, 0x1_0000]))).unwrap();
        assert_eq!(edits, [Edit { track_id: 7, start_secs: 0.064, duration_secs: Some(0.25) }]);
    }

    #[test]
    fn ignores_rearrangements_and_other_files() {
        assert_eq!(read(&mut Cursor::new(movie(&[0, 2, 250, 1_024, 0x1_0000]))).unwrap(), []);
        assert_eq!(read(&mut Cursor::new(movie(&[0, 1, 250, u32::MAX, 0x1_0000]))).unwrap(), []);
        assert_eq!(read(&mut Cursor::new(b"RIFF....WAVEfmt ".to_vec())).unwrap(), []);
        assert_eq!(read(&mut Cursor::new(Vec::new())).unwrap(), []);
    }
}

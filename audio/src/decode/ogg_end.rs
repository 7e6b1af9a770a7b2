//! Whether an Ogg file has its end.
//!
//! The demuxer takes the last page that it finds for the end; only a page that is whole and marked as the last one
//! of its stream (RFC 3533, section 6) tells an ended file from a cut one.

use std::io::{self, SeekFrom};

use symphonia::core::io::MediaSource;

/// A page is at most 27 + 255 + 255 * 255 bytes, so the last one starts within this many bytes of the end.
const LARGEST_PAGE_BYTES: u64 = 27 + 255 + 255 * 255;

/// True for an Ogg file whose last page is incomplete or not marked as last; false for every other file.
pub(super) fn is_cut(source: &mut dyn MediaSource) -> io::Result<bool> {
    let mut magic = [0; 4];
    source.seek(SeekFrom::Start(0))?;
    let Some(length) = source.byte_len().filter(|length| *length > 4 && source.is_seekable()) else {
        return Ok(false);
    };
    source.read_exact(&mut magic)?;
    if &magic != b"OggS" {
        return Ok(false);
    }
    let start = length.saturating_sub(LARGEST_PAGE_BYTES);
    source.seek(SeekFrom::Start(start))?;
    let mut tail = vec![0; usize::try_from(length - start).unwrap_or(0)];
    source.read_exact(&mut tail)?;
    Ok(!ends_with_last_page(&tail))
}

fn ends_with_last_page(tail: &[u8]) -> bool {
    let Some(at) = tail.windows(4).rposition(|window| window == b"OggS") else { return false };
    let page = &tail[at..];
    let (Some(flags), Some(n_segments)) = (page.get(5), page.get(26)) else { return false };
    let Some(segments) = page.get(27..27 + usize::from(*n_segments)) else { return false };
    let body: usize = segments.iter().map(|length| usize::from(*length)).sum();
    let is_last = flags & 4 != 0;
    is_last && page.len() >= 27 + segments.len() + body
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn page(flags: u8, body: &[u8]) -> Vec<u8> {
        let mut page = b"OggS\x00".to_vec();
        page.push(flags);
        page.resize(26, 0);
        page.extend([1, body.len() as u8]);
        page.extend(body);
        page
    }

    #[test]
    fn a_whole_last_page_is_an_end() {
        let cut = |bytes: Vec<u8>| is_cut(&mut Cursor::new(bytes)).unwrap();
        let whole = [page(2, b"first"), page(4, b"last")].concat();
        assert!(!cut(whole.clone()));
        assert!(!cut([whole.clone(), vec![0; 100]].concat()));
        assert!(cut(whole[..whole.len() - 1].to_vec()));
        assert!(cut([whole, page(2, b"next")].concat()));
        assert!(!cut(b"RIFF....".to_vec()));
        assert!(!cut(Vec::new()));
    }
}

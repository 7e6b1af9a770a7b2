//! Pages of Ogg (RFC 3533), for one stream whose packets never cross pages.

use crc::{Algorithm, Crc};

/// The check sum of pages, which no other format has.
static PAGE_SUM: Crc<u32> = Crc::<u32>::new(&Algorithm {
    width: 32,
    poly: 0x04c1_1db7,
    init: 0,
    refin: false,
    refout: false,
    xorout: 0,
    check: 0x89a1_897f,
    residue: 0,
});

/// Where the check sum lies in a page.
const SUM_AT: std::ops::Range<usize> = 22..26;

/// Marks of a page (RFC 3533, 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    First = 2,
    Middle = 0,
    Last = 4,
}

/// Packs packets into pages.
#[derive(Default)]
pub(super) struct OggWriter {
    n_pages: u32,
    n_packets: usize,
    /// Lengths of the packets that wait for their page, in Ogg's base of 255.
    lacing: Vec<u8>,
    body: Vec<u8>,
}

impl OggWriter {
    /// Adds a packet to the next page, which can have 255 segments: a packet takes one for every 255 bytes and one more.
    pub(super) fn add(&mut self, packet: &[u8]) {
        self.lacing.extend(std::iter::repeat_n(255, packet.len() / 255));
        self.lacing.push((packet.len() % 255) as u8);
        self.body.extend_from_slice(packet);
        self.n_packets += 1;
    }

    /// Packets that wait for their page.
    pub(super) fn n_packets(&self) -> usize {
        self.n_packets
    }

    /// Ends the page. `granule` is the position at its end, in the codec's units.
    pub(super) fn write_page(&mut self, mark: Mark, granule: u64, bytes: &mut Vec<u8>) {
        let mut page = b"OggS\0".to_vec();
        page.push(mark as u8);
        page.extend(granule.to_le_bytes());
        // Streams in one file are told apart by their number. This one is alone, and the same speech is the same bytes.
        page.extend(1_u32.to_le_bytes());
        page.extend(self.n_pages.to_le_bytes());
        // The check sum, which is made as if it were 0.
        page.extend([0; 4]);
        page.push(self.lacing.len() as u8);
        page.append(&mut self.lacing);
        page.append(&mut self.body);
        let sum = PAGE_SUM.checksum(&page).to_le_bytes();
        page[SUM_AT].copy_from_slice(&sum);
        bytes.extend(page);
        self.n_pages += 1;
        self.n_packets = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_the_one_of_its_definition() {
        assert_eq!(PAGE_SUM.checksum(b"123456789"), PAGE_SUM.algorithm.check);
    }

    #[test]
    fn lengths_are_told_in_base_255() {
        let mut writer = OggWriter::default();
        let packets = [vec![7_u8; 254], vec![8; 255], vec![9; 511], vec![]];
        packets.iter().for_each(|packet| writer.add(packet));
        assert_eq!(writer.n_packets(), 4);
        let mut page = Vec::new();
        writer.write_page(Mark::First, 0x0102_0304, &mut page);
        assert_eq!(page[..6], *b"OggS\0\x02");
        assert_eq!(page[6..14], [4, 3, 2, 1, 0, 0, 0, 0]);
        assert_eq!(page[26..34], [7, 254, 255, 0, 255, 255, 1, 0]);
        assert_eq!(page[34..], packets.concat());
        let mut next = Vec::new();
        writer.write_page(Mark::Last, 5, &mut next);
        assert_eq!((next[5], next[18], next[26], next.len()), (4, 1, 0, 27));
    }
}

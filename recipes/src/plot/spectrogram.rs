//! Features as an image: time from left to right, frequency upwards, loudness as colour. A PNG, as a plot of rectangles would have tens of
//! thousands of them (W3C, "Portable Network Graphics (PNG) Specification", indexed colours).

use std::io::Write;

use audio::Features;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use crc::{CRC_32_ISO_HDLC, Crc};
use flate2::{Compression, write::ZlibEncoder};

use super::Error;

const SIGNATURE: [u8; 8] = *b"\x89PNG\r\n\x1a\n";
const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
/// Coefficients of red, green and blue by powers of the loudness: matplotlib's viridis (CC0), fitted by Matt Zucker (public domain).
const VIRIDIS: [[f64; 3]; 7] = [
    [0.277_727_3, 0.005_407_3, 0.334_099_8],
    [0.105_093_0, 1.404_613_5, 1.384_590_2],
    [-0.330_861_8, 0.214_847_6, 0.095_095_2],
    [-4.634_230_5, -5.799_101_0, -19.332_441_0],
    [6.228_269_9, 14.179_933_4, 56.690_552_6],
    [4.776_385_0, -13.745_145_4, -65.353_032_6],
    [-5.435_455_9, 4.645_852_6, 26.312_435_2],
];

/// An image of features.
#[derive(Debug, Clone, PartialEq)]
pub struct Spectrogram {
    /// What it is called where it cannot be drawn.
    pub title: String,
    /// What is drawn, a pixel for each value, from the smallest to the largest.
    pub features: Features,
}

impl Spectrogram {
    /// The image as an address for `src`, with everything in it.
    ///
    /// # Errors
    /// What [`Spectrogram::to_png`] refuses.
    pub fn to_data_uri(&self) -> Result<String, Error> {
        Ok(format!("data:image/png;base64,{}", BASE64_STANDARD.encode(self.to_png()?)))
    }

    /// The image as a PNG of `n_frames` x `n_mels` pixels.
    ///
    /// # Errors
    /// When there is nothing to draw: no frames, no finite value.
    pub fn to_png(&self) -> Result<Vec<u8>, Error> {
        let Features { data, n_mels, n_frames } = &self.features;
        let finite = || data.iter().copied().filter(|value| value.is_finite());
        let bounds = (finite().reduce(f32::min), finite().reduce(f32::max));
        let (Some(low), Some(high)) = bounds else {
            return Err(Error::Empty { title: self.title.clone() });
        };
        // Not a number is black, as silence is.
        let index = |value: f32| (255.0 * (value - low) / (high - low).max(f32::MIN_POSITIVE)).round() as u8;
        let mut rows = Vec::with_capacity(n_mels * (n_frames + 1));
        for mel in (0..*n_mels).rev() {
            rows.push(0); // no filter
            rows.extend(self.features.row(mel).iter().map(|value| index(*value)));
        }
        let failed = |message: String| Error::Drawing { title: self.title.clone(), message };
        let mut compressed = ZlibEncoder::new(Vec::new(), Compression::default());
        compressed.write_all(&rows).map_err(|error| failed(error.to_string()))?;
        let compressed = compressed.finish().map_err(|error| failed(error.to_string()))?;
        let size = |n: usize| u32::try_from(n).map_err(|_| failed(format!("{n} pixels are too many")));
        let mut header = [size(*n_frames)?.to_be_bytes(), size(*n_mels)?.to_be_bytes()].concat();
        header.extend([8, 3, 0, 0, 0]); // bits, indexed, and the only methods that there are
        let mut png = SIGNATURE.to_vec();
        let palette: Vec<u8> = (0..=255_u8).flat_map(color).collect();
        for (kind, data) in
            [(b"IHDR", &header), (b"PLTE", &palette), (b"IDAT", &compressed), (b"IEND", &Vec::new())]
        {
            png.extend(size(data.len())?.to_be_bytes());
            let mut digest = CRC.digest();
            digest.update(kind);
            digest.update(data);
            png.extend(kind);
            png.extend(data);
            png.extend(digest.finalize().to_be_bytes());
        }
        Ok(png)
    }
}

/// Red, green and blue of a loudness.
fn color(index: u8) -> [u8; 3] {
    let t = f64::from(index) / 255.0;
    std::array::from_fn(|channel| {
        let value = VIRIDIS.iter().rev().fold(0.0, |sum, powers| sum * t + powers[channel]);
        (255.0 * value).round().clamp(0.0, 255.0) as u8
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::ZlibDecoder;

    use super::*;

    /// Kind and contents of each chunk.
    fn chunks(png: &[u8]) -> Vec<(&[u8], &[u8])> {
        assert_eq!(png[..8], SIGNATURE);
        let (mut chunks, mut rest) = (Vec::new(), &png[8..]);
        while !rest.is_empty() {
            let length = u32::from_be_bytes(rest[..4].try_into().expect("four bytes")) as usize;
            let (kind, data) = (&rest[4..8], &rest[8..8 + length]);
            let crc = u32::from_be_bytes(rest[8 + length..12 + length].try_into().expect("four bytes"));
            assert_eq!(crc, CRC.checksum(&rest[4..8 + length]));
            chunks.push((kind, data));
            rest = &rest[12 + length..];
        }
        chunks
    }

    #[test]
    fn every_value_is_a_pixel_and_low_frequencies_are_below() {
        let data = vec![0.0, 1.0, 2.0, 4.0, f32::NAN, 3.0];
        let image =
            Spectrogram { title: "x".to_owned(), features: Features { data, n_mels: 2, n_frames: 3 } };
        let png = image.to_png().expect("drawn");
        let chunks = chunks(&png);
        let kinds: Vec<_> = chunks.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [b"IHDR", b"PLTE", b"IDAT", b"IEND"]);
        assert_eq!(chunks[0].1, [0, 0, 0, 3, 0, 0, 0, 2, 8, 3, 0, 0, 0]);
        let mut rows = Vec::new();
        ZlibDecoder::new(chunks[2].1).read_to_end(&mut rows).expect("inflated");
        assert_eq!(rows, [0, 255, 0, 191, 0, 0, 64, 128]);
        // Dark blue, then yellow, as matplotlib's; a check value of the checksum.
        let palette = chunks[1].1;
        assert!(
            palette[..3].iter().zip([68, 1, 84]).all(|(one, other)| one.abs_diff(other) < 8),
            "{palette:?}"
        );
        assert!(palette[765..].iter().zip([253, 231, 37]).all(|(one, other)| one.abs_diff(other) < 8));
        assert_eq!(CRC.checksum(b"IEND"), 0xae42_6082);
        assert!(image.to_data_uri().expect("drawn").starts_with("data:image/png;base64,iVBORw0KGgo"));
    }

    #[test]
    fn silence_is_drawn_and_nothing_is_not() {
        let features = Features { data: vec![-1.5; 40], n_mels: 4, n_frames: 10 };
        let image = Spectrogram { title: "silence".to_owned(), features };
        assert!(image.to_png().is_ok());
        for data in [Vec::new(), vec![f32::NAN; 2]] {
            let n_frames = data.len();
            let nothing = Spectrogram { features: Features { data, n_mels: 1, n_frames }, ..image.clone() };
            assert!(matches!(nothing.to_png(), Err(Error::Empty { .. })));
        }
    }
}

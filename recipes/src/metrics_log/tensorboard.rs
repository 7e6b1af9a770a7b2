//! TensorBoard's event files: records of TensorFlow's framing that hold `Event` messages (tensorboard/compat/proto/event.proto,
//! summary.proto). The two messages that scalars need are written by hand: a protobuf compiler for six fields would be
//! the larger part.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crc::{CRC_32_ISCSI, Crc};

use super::{Error, create_dir, io, unix_secs};

/// What TensorBoard looks for in a file's name; it reads files of one directory in the order of their names.
const NAME_PREFIX: &str = "events.out.tfevents.";
/// Version of the events' meaning: steps from a restart on replace those before.
const FILE_VERSION: &str = "brain.Event:2";
/// CRC-32C (Castagnoli).
const CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// Appends events to one new file; those of one step reach the kernel together.
#[derive(Debug)]
pub struct TensorBoardWriter {
    path: PathBuf,
    file: File,
}

impl TensorBoardWriter {
    /// A new event file in `directory`, which is created if need be.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be created.
    pub fn create(directory: &Path, wall_time: SystemTime) -> Result<Self, Error> {
        create_dir(directory)?;
        // A name after all others, also when the clock was set back or a run is resumed within a second.
        let mut secs = unix_secs(wall_time) as u64;
        for entry in std::fs::read_dir(directory).map_err(io("read", directory))? {
            let name = entry.map_err(io("read", directory))?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(NAME_PREFIX)?.split('.').next());
            if let Some(used) = number.and_then(|number| number.parse::<u64>().ok()) {
                secs = secs.max(used.saturating_add(1));
            }
        }
        let path = directory.join(format!("{NAME_PREFIX}{secs:010}.speechd"));
        let file = OpenOptions::new().append(true).create_new(true).open(&path);
        let mut writer = TensorBoardWriter { file: file.map_err(io("create", &path))?, path };
        let version = Field::Bytes(3, FILE_VERSION.as_bytes().to_vec());
        writer.append(&record(&event(wall_time, 0, version)))?;
        Ok(writer)
    }

    /// [`TensorBoardWriter::create`] for a run that goes on after `last_step`: TensorBoard forgets what earlier files say
    /// about later steps.
    ///
    /// # Errors
    /// As [`TensorBoardWriter::create`].
    pub fn resume(directory: &Path, wall_time: SystemTime, last_step: u64) -> Result<Self, Error> {
        let mut writer = Self::create(directory, wall_time)?;
        // SessionLog { status: START }
        let start = message(&[Field::Varint(1, 1)]);
        let purged_from = last_step.saturating_add(1);
        writer.append(&record(&event(wall_time, purged_from, Field::Bytes(7, start))))?;
        Ok(writer)
    }

    /// The file that is written.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends the values of a step, rounded to f32.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written.
    pub fn write(&mut self, wall_time: SystemTime, step: u64, values: &[(&str, f64)]) -> Result<(), Error> {
        if values.is_empty() {
            return Ok(());
        }
        let values: Vec<Field> = values
            .iter()
            .map(|(tag, value)| {
                // Summary.Value { tag, simple_value }
                let fields = [Field::Bytes(1, tag.as_bytes().to_vec()), Field::Float(2, *value as f32)];
                Field::Bytes(1, message(&fields))
            })
            .collect();
        self.append(&record(&event(wall_time, step, Field::Bytes(5, message(&values)))))
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(io("write", &self.path))
    }
}

/// `Event { wall_time, step, what }`; a step of 0 is protobuf's default and left out.
fn event(wall_time: SystemTime, step: u64, what: Field) -> Vec<u8> {
    let mut fields = vec![Field::Double(1, unix_secs(wall_time))];
    if step > 0 {
        fields.push(Field::Varint(2, step));
    }
    fields.push(what);
    message(&fields)
}

/// TensorFlow's record: length, its checksum, data, its checksum; numbers little-endian.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut bytes = Vec::with_capacity(data.len() + 16);
    bytes.extend(length);
    bytes.extend(masked_crc(&length).to_le_bytes());
    bytes.extend(data);
    bytes.extend(masked_crc(data).to_le_bytes());
    bytes
}

/// CRC-32C, rotated and shifted so that checksums of data that holds checksums do not degenerate.
fn masked_crc(data: &[u8]) -> u32 {
    CRC32C.checksum(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A field of a protobuf message: its number and its value.
enum Field {
    Varint(u8, u64),
    Double(u8, f64),
    Float(u8, f32),
    Bytes(u8, Vec<u8>),
}

/// Fields in protobuf's wire format.
fn message(fields: &[Field]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in fields {
        match field {
            Field::Varint(number, value) => {
                bytes.push(number << 3);
                push_varint(&mut bytes, *value);
            }
            Field::Double(number, value) => {
                bytes.push(number << 3 | 1);
                bytes.extend(value.to_le_bytes());
            }
            Field::Bytes(number, value) => {
                bytes.push(number << 3 | 2);
                push_varint(&mut bytes, value.len() as u64);
                bytes.extend(value);
            }
            Field::Float(number, value) => {
                bytes.push(number << 3 | 5);
                bytes.extend(value.to_le_bytes());
            }
        }
    }
    bytes
}

/// Seven bits a byte, the lowest first; the highest bit says that more follow.
fn push_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// RFC 3720, B.4, and TensorFlow's mask.
    #[test]
    fn the_checksum_is_the_masked_castagnoli_one() {
        assert_eq!(CRC32C.checksum(&[0; 32]), 0x8a91_36aa);
        // ((crc >> 15) | (crc << 17)) + 0xa282ead8
        assert_eq!(masked_crc(&[0; 32]), 0x0fd7_fffa);
    }

    #[test]
    fn varints_are_those_of_the_protobuf_guide() {
        let varint = |value| {
            let mut bytes = Vec::new();
            push_varint(&mut bytes, value);
            bytes
        };
        assert_eq!(varint(1), [1]);
        assert_eq!(varint(150), [0x96, 0x01]);
        assert_eq!(varint(u64::MAX), [[0xff; 9].as_slice(), &[1]].concat());
    }

    /// A run and its resumption, byte for byte as TensorBoard's own writer puts them (`tests/oracle/tensorboard_events.py`,
    /// which also reads them back).
    #[test]
    fn files_equal_those_of_tensorboard() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tensorboard");
        let dir = tempfile::tempdir().unwrap();
        let at = |secs| SystemTime::UNIX_EPOCH + Duration::from_secs_f64(secs);
        let mut writer = TensorBoardWriter::create(dir.path(), at(1_800_000_000.25)).unwrap();
        let losses = [(1, 2.5), (2, 1.25), (300, f64::NAN), (4_000_000_000, 0.0)];
        for (step, loss) in losses {
            writer.write(at(1_800_000_001.5), step, &[("train/loss", loss), ("train/lr", 1e-4)]).unwrap();
        }
        assert!(writer.path().ends_with("events.out.tfevents.1800000000.speechd"));
        assert_eq!(std::fs::read(writer.path()).unwrap(), std::fs::read(fixtures.join("run")).unwrap());

        // Within the same second.
        let mut writer = TensorBoardWriter::resume(dir.path(), at(1_800_000_000.75), 2).unwrap();
        writer.write(at(1_800_000_010.0), 3, &[("train/loss", 1.0), ("dev/wer \u{67e}", 0.5)]).unwrap();
        writer.write(at(1_800_000_010.0), 3, &[]).unwrap();
        assert!(writer.path().ends_with("events.out.tfevents.1800000001.speechd"));
        assert_eq!(std::fs::read(writer.path()).unwrap(), std::fs::read(fixtures.join("resumed")).unwrap());
    }
}

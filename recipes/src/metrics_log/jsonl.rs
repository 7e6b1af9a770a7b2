//! One line of JSON per value: `{"step":10,"wall_time_secs":1.8e9,"name":"train/loss","value":2.3}`.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{Error, io, unix_secs};

/// One measured value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scalar {
    /// The optimiser step after which it was measured.
    pub step: u64,
    /// When, seconds since 1970.
    pub wall_time_secs: f64,
    /// What, as `group/name`.
    pub name: String,
    /// How much. JSON has no numbers that are not finite; they are the texts `NaN`, `Infinity` and `-Infinity`, as in
    /// protobuf's JSON.
    #[serde(with = "any_float")]
    pub value: f64,
}

mod any_float {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum AnyFloat<'a> {
        Finite(f64),
        Other(std::borrow::Cow<'a, str>),
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        let text = match *value {
            value if value.is_finite() => return AnyFloat::Finite(value).serialize(serializer),
            value if value.is_nan() => "NaN",
            value if value > 0.0 => "Infinity",
            _ => "-Infinity",
        };
        AnyFloat::Other(text.into()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        match AnyFloat::deserialize(deserializer)? {
            AnyFloat::Finite(value) => Ok(value),
            AnyFloat::Other(text) => match text.as_ref() {
                "NaN" => Ok(f64::NAN),
                "Infinity" => Ok(f64::INFINITY),
                "-Infinity" => Ok(f64::NEG_INFINITY),
                other => Err(D::Error::custom(format!("{other:?} is not a number"))),
            },
        }
    }
}

/// Appends lines; those of one step reach the kernel together.
#[derive(Debug)]
pub struct JsonlWriter {
    path: PathBuf,
    file: File,
}

impl JsonlWriter {
    /// A new file.
    ///
    /// # Errors
    /// [`Error::Exists`] when it is there already, [`Error::Io`] when it cannot be created.
    pub fn create(path: &Path) -> Result<Self, Error> {
        match OpenOptions::new().append(true).create_new(true).open(path) {
            Ok(file) => Ok(JsonlWriter { path: path.to_owned(), file }),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(Error::Exists { path: path.to_owned() })
            }
            Err(error) => Err(io("create", path)(error)),
        }
    }

    /// A file to go on with after `last_step`: later lines are cut off, and so is a last line that a killed run left
    /// unfinished. Created when it is not there.
    ///
    /// # Errors
    /// [`Error::BadLine`] for another line that is no [`Scalar`], [`Error::Io`] when it cannot be read or written.
    pub fn resume(path: &Path, last_step: u64) -> Result<Self, Error> {
        let file = OpenOptions::new().read(true).append(true).create(true).open(path);
        let file = file.map_err(io("create", path))?;
        let mut kept_bytes = 0;
        scan(path, &file, |scalar, end_bytes| {
            let is_kept = scalar.step <= last_step;
            if is_kept {
                kept_bytes = end_bytes;
            }
            is_kept
        })?;
        file.set_len(kept_bytes).map_err(io("truncate", path))?;
        Ok(JsonlWriter { path: path.to_owned(), file })
    }

    /// Appends the values of a step.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written.
    pub fn write(&mut self, wall_time: SystemTime, step: u64, values: &[(&str, f64)]) -> Result<(), Error> {
        let wall_time_secs = unix_secs(wall_time);
        let mut lines = Vec::new();
        for (name, value) in values {
            let scalar = Scalar { step, wall_time_secs, name: (*name).to_owned(), value: *value };
            serde_json::to_writer(&mut lines, &scalar)
                .map_err(|error| io("write", &self.path)(error.into()))?;
            lines.push(b'\n');
        }
        self.file.write_all(&lines).map_err(io("write", &self.path))
    }
}

/// All values of a log, in order; a last line that a killed run left unfinished is left out.
///
/// # Errors
/// [`Error::BadLine`] for another line that is no [`Scalar`], [`Error::Io`] when the file cannot be read.
pub fn read_scalars(path: &Path) -> Result<Vec<Scalar>, Error> {
    let file = File::open(path).map_err(io("read", path))?;
    let mut scalars = Vec::new();
    scan(path, &file, |scalar, _| {
        scalars.push(scalar);
        true
    })?;
    Ok(scalars)
}

/// Hands out each value with the position after its line, until `visit` says no.
fn scan(path: &Path, file: &File, mut visit: impl FnMut(Scalar, u64) -> bool) -> Result<(), Error> {
    let mut reader = BufReader::new(file);
    let mut text = Vec::new();
    let (mut line, mut end_bytes) = (0, 0);
    // A bad line is an error only when another follows.
    let mut bad_line = None;
    loop {
        text.clear();
        let n_bytes = reader.read_until(b'\n', &mut text).map_err(io("read", path))?;
        if n_bytes == 0 {
            return Ok(());
        }
        if let Some(error) = bad_line {
            return Err(error);
        }
        line += 1;
        end_bytes += n_bytes as u64;
        match serde_json::from_slice::<Scalar>(&text) {
            Ok(scalar) if text.ends_with(b"\n") => {
                if !visit(scalar, end_bytes) {
                    return Ok(());
                }
            }
            // Whole but for its end, which the next line would be glued to.
            Ok(_) => return Ok(()),
            Err(error) => {
                bad_line = Some(Error::BadLine { path: path.to_owned(), line, reason: error.to_string() });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn at(secs: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(secs)
    }

    #[test]
    fn lines_are_read_back_as_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut writer = JsonlWriter::create(&path).unwrap();
        writer.write(at(1_800_000_000), 1, &[("train/loss", 0.1), ("train/lr", 1e-300)]).unwrap();
        writer
            .write(at(1_800_000_001), 2, &[("train/loss", f64::NAN), ("d\"ev\n", f64::NEG_INFINITY)])
            .unwrap();
        writer.write(at(1_800_000_001), 2, &[]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text.lines().next().unwrap(),
            r#"{"step":1,"wall_time_secs":1800000000.0,"name":"train/loss","value":0.1}"#
        );
        let scalars = read_scalars(&path).unwrap();
        assert_eq!(scalars.len(), 4);
        assert_eq!((scalars[1].step, scalars[1].name.as_str(), scalars[1].value), (1, "train/lr", 1e-300));
        assert!(scalars[2].value.is_nan());
        assert_eq!((scalars[3].name.as_str(), scalars[3].value), ("d\"ev\n", f64::NEG_INFINITY));
    }

    /// Wherever a kill ends the file, what was whole before is kept and the run goes on.
    #[test]
    fn any_unfinished_end_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut writer = JsonlWriter::create(&path).unwrap();
        for step in 1..=3 {
            writer.write(at(5), step, &[("loss", 1.5)]).unwrap();
        }
        let whole = std::fs::read(&path).unwrap();
        for n_bytes in 0..=whole.len() {
            std::fs::write(&path, &whole[..n_bytes]).unwrap();
            let n_lines = whole[..n_bytes].iter().filter(|byte| **byte == b'\n').count() as u64;
            let mut writer = JsonlWriter::resume(&path, 2).unwrap();
            let n_kept = n_lines.min(2);
            writer.write(at(6), 9, &[("loss", 0.5)]).unwrap();
            let steps: Vec<u64> = read_scalars(&path).unwrap().iter().map(|scalar| scalar.step).collect();
            assert_eq!(steps, (1..=n_kept).chain([9]).collect::<Vec<_>>(), "{n_bytes} bytes");
        }
    }

    #[test]
    fn a_foreign_line_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let good = r#"{"step":1,"wall_time_secs":0.0,"name":"a","value":1.0}"#;
        for bad in ["hello", "{}", r#"{"step":1,"wall_time_secs":0.0,"name":"a","value":"much"}"#, "\0\0\0"] {
            std::fs::write(&path, format!("{good}\n{bad}\n{good}\n")).unwrap();
            assert!(matches!(JsonlWriter::resume(&path, 5), Err(Error::BadLine { line: 2, .. })), "{bad}");
            // As the last line it is what a crash left.
            std::fs::write(&path, format!("{good}\n{bad}\n")).unwrap();
            drop(JsonlWriter::resume(&path, 5).unwrap());
            assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{good}\n"));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_log_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("metrics.jsonl");
            std::fs::write(&path, &bytes).unwrap();
            let _ = read_scalars(&path);
            if JsonlWriter::resume(&path, 3).is_ok() {
                prop_assert!(read_scalars(&path).is_ok());
            }
        }
    }
}

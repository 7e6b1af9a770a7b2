//! Recordings that come inside other files: each becomes a file of its own, which manifests can name.

use std::{
    collections::HashSet,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use super::{Listing, Options, Split, audiofolder};
use crate::data::manifest::{Error, Reason};

/// The largest recording that is unpacked: what an archive says of its sizes may be a lie.
const MAX_BYTES: u64 = 2 << 30;
/// What a row says of a recording's stretch, beside the names of its place: of the file that it was cut from, not of what is in
/// the archive.
const STRETCH: [&str; 3] = ["offset", "channel", "duration"];

/// An archive of a corpus, and where the recordings in it go.
pub(super) struct Archive<'a> {
    root: &'a Path,
    path: PathBuf,
    /// Its name within the corpus, without its extension.
    name: String,
    /// Which part its name or its folders speak of.
    split: Option<Split>,
    folder: PathBuf,
    written: HashSet<PathBuf>,
}

impl<'a> Archive<'a> {
    /// Refuses archives where there is no place for what is in them.
    pub(super) fn open(root: &'a Path, path: PathBuf, options: &Options) -> Result<Self, Error> {
        let Some(folder) = &options.unpack_into else {
            return Err(Error::file(&path, "holds recordings inside; import it into a folder"));
        };
        let within = path.strip_prefix(root).ok().filter(|within| within.file_name().is_some());
        let within = within.unwrap_or_else(|| Path::new(path.file_name().unwrap_or_default()));
        let name = within.with_extension("").to_string_lossy().into_owned();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let split = audiofolder::split_of(within).or_else(|| Split::in_name(&stem));
        let folder = folder.join(plain(&name));
        Ok(Self { root, name, split, folder, written: HashSet::new(), path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a recording and says where it is. `name` is what the archive calls it: no part of it leads elsewhere. One that is not
    /// whole leaves nothing.
    pub(super) fn unpack(
        &mut self,
        name: &str,
        bytes: &mut dyn Read,
        n_bytes: Option<u64>,
    ) -> Result<PathBuf, Reason> {
        let broken = |path: &Path, error: String| {
            // There may be nothing to remove.
            let _ = fs::remove_file(path);
            Reason::BadRecording(format!("{name}: {error}"))
        };
        let mut path = self.folder.join(plain(name));
        // Two names may be the same without what leads elsewhere.
        while !self.written.insert(path.clone()) {
            path.set_file_name(format!("_{}", path.file_name().unwrap_or_default().to_string_lossy()));
        }
        let mut write = || -> io::Result<u64> {
            fs::create_dir_all(&self.folder)?;
            io::copy(&mut bytes.take(MAX_BYTES + 1), &mut fs::File::create(&path)?)
        };
        match (write(), n_bytes) {
            (Err(error), _) => Err(broken(&path, error.to_string())),
            (Ok(n), _) if n > MAX_BYTES => Err(broken(&path, format!("is larger than {MAX_BYTES} bytes"))),
            (Ok(n), Some(n_bytes)) if n != n_bytes => {
                Err(broken(&path, format!("breaks off after {n} of {n_bytes} bytes")))
            }
            // Absolute: rows' paths count from the corpus, and this one does not.
            (Ok(_), _) => std::path::absolute(&path).map_err(|error| broken(&path, error.to_string())),
        }
    }

    /// Takes a row about a recording that was unpacked.
    pub(super) fn push(
        &self,
        key: &str,
        recording: &Path,
        mut object: Map<String, Value>,
        line: Option<u64>,
        listing: &mut Listing,
    ) {
        for name in audiofolder::RECORDING.iter().chain(&STRETCH) {
            object.remove(*name);
        }
        object.insert("audio_filepath".to_owned(), recording.to_string_lossy().into());
        // Names come again in the next archive.
        object.insert("id".to_owned(), format!("{}/{key}", self.name).into());
        audiofolder::push(self.root, self.root, object, (&self.path, line, self.split), listing);
    }

    pub(super) fn reject(&self, line: Option<u64>, reason: Reason, listing: &mut Listing) {
        listing.rejected_splits.extend(self.split);
        listing.reject(&self.path.as_path().into(), line, reason);
    }
}

/// A name that stays in its folder.
fn plain(name: &str) -> String {
    let plain: String =
        name.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect();
    // Neither hidden nor a way up nor nothing.
    match plain.trim_start_matches('.') {
        "" => "_".to_owned(),
        plain => plain.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_folder() {
        for (name, expected) in [
            ("a.wav", "a.wav"),
            ("../../etc/x.wav", "_.._etc_x.wav"),
            ("a/b.flac", "a_b.flac"),
            ("..", "_"),
            ("پښتو.mp3", "پښتو.mp3"),
        ] {
            assert_eq!(plain(name), expected);
        }
    }

    #[test]
    fn what_breaks_off_is_not_kept_and_equal_names_are_two_files() {
        let folder = tempfile::tempdir().expect("a folder");
        let options = Options { unpack_into: Some(folder.path().to_owned()), ..Options::default() };
        let mut archive = Archive::open(Path::new("c"), "c/test/a.tar".into(), &options).expect("a place");
        assert_eq!((archive.split, archive.name.as_str()), (Some(Split::Test), "test/a"));
        let one = archive.unpack("a/b.wav", &mut b"123".as_slice(), Some(3)).expect("whole");
        let two = archive.unpack("a_b.wav", &mut b"4".as_slice(), None).expect("whole");
        assert_eq!(
            (fs::read(one).expect("there"), fs::read(two).expect("there")),
            (b"123".to_vec(), b"4".to_vec())
        );
        let reason = archive.unpack("c.wav", &mut b"12".as_slice(), Some(3)).expect_err("cut off");
        assert!(reason.to_string().contains("2 of 3 bytes"), "{reason}");
        assert_eq!(fs::read_dir(folder.path().join("test_a")).expect("a folder").count(), 2);
    }
}

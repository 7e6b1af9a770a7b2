//! Checksums of files: what the hub announces in an etag, and what is on the disk.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use recipes::data::hex;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// How a file's etag identifies its contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Digest {
    /// Large files: SHA-256 of the contents.
    Sha256(String),
    /// Small files: SHA-1 of `blob <size>\0` and the contents, as git names them.
    GitBlob(String),
    /// Another hub's own scheme: names a version, proves nothing.
    Opaque(String),
}

impl Digest {
    /// Reads an etag without its quotes and weakness mark; `None` when it cannot serve as a file name.
    pub fn from_etag(etag: &str) -> Option<Self> {
        let etag = etag.trim();
        let etag = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
        let is_name = !etag.is_empty()
            && etag.len() <= 128
            && !etag.starts_with('.')
            && etag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !is_name {
            return None;
        }
        let is_hex = etag.bytes().all(|byte| byte.is_ascii_hexdigit());
        Some(match etag.len() {
            64 if is_hex => Self::Sha256(etag.to_ascii_lowercase()),
            40 if is_hex => Self::GitBlob(etag.to_ascii_lowercase()),
            _ => Self::Opaque(etag.to_owned()),
        })
    }

    /// The name of the blob in the cache.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Sha256(etag) | Self::GitBlob(etag) | Self::Opaque(etag) => etag,
        }
    }

    /// The digest of the file at `path` by the same scheme; `None` when the scheme is not known.
    pub fn of_file(&self, path: &Path) -> io::Result<Option<String>> {
        match self {
            Self::Sha256(_) => sha256(path).map(Some),
            Self::GitBlob(_) => {
                let file = File::open(path)?;
                let mut hasher = Sha1::new();
                hasher.update(format!("blob {}\0", file.metadata()?.len()));
                read_all(file, |chunk| hasher.update(chunk))?;
                Ok(Some(hex(&hasher.finalize())))
            }
            Self::Opaque(_) => Ok(None),
        }
    }
}

/// SHA-256 of a file's contents, in hexadecimal.
pub fn sha256(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    read_all(File::open(path)?, |chunk| hasher.update(chunk))?;
    Ok(hex(&hasher.finalize()))
}

/// SHA-256 of bytes, in hexadecimal.
pub fn sha256_of(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn read_all(mut file: File, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 17];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            n => take(&buffer[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_name_their_scheme_and_never_a_path() {
        let sha = "a".repeat(64);
        assert_eq!(Digest::from_etag(&format!("\"{sha}\"")), Some(Digest::Sha256(sha)));
        let git = "0".repeat(40);
        assert_eq!(Digest::from_etag(&format!("W/\"{git}\"")), Some(Digest::GitBlob(git)));
        assert_eq!(Digest::from_etag("v1-7"), Some(Digest::Opaque("v1-7".to_owned())));
        for hostile in ["", "\"\"", "../x", "a/b", "..", ".hidden", "a\\b", &"x".repeat(129)] {
            assert_eq!(Digest::from_etag(hostile), None, "{hostile}");
        }
    }

    #[test]
    fn digests_equal_the_published_ones() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        std::fs::write(&path, "hello\n").expect("written");
        // `git hash-object` and `sha256sum` of the same six bytes.
        let git = Digest::GitBlob(String::new()).of_file(&path).expect("read");
        assert_eq!(git.as_deref(), Some("ce013625030ba8dba906f756967f9e9ca394464a"));
        assert_eq!(
            sha256(&path).expect("read"),
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
        );
    }
}

//! One file from a hub to the cache: resumed where it broke off, checked, and only then given its name.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use ureq::http::{StatusCode, header};

use super::{
    Digest, Error, Progress,
    cache::create_parent,
    http::{Client, Failure, header_text},
};

/// A file as the hub announces it.
#[derive(Debug)]
pub(crate) struct Remote {
    pub(crate) url: String,
    /// Its path in the repository.
    pub(crate) file: String,
    pub(crate) size: Option<u64>,
    pub(crate) digest: Digest,
}

impl Remote {
    /// More than any real file of its kind has; a hub that sends more is broken or hostile.
    pub(crate) fn max_bytes(&self) -> u64 {
        if self.file.ends_with(".safetensors") { 256 << 30 } else { 256 << 20 }
    }
}

/// Fetches `remote` to `blob`. The caller holds the blob's lock.
pub(crate) fn fetch(
    client: &Client,
    remote: &Remote,
    what: &str,
    blob: &Path,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<(), Error> {
    create_parent(blob)?;
    let part = PathBuf::from(format!("{}.incomplete", blob.display()));
    let was_resumed = part_len(&part) > 0;
    receive(client, remote, what, &part, progress)?;
    let mut checked = check(remote, &part);
    if was_resumed && matches!(checked, Err(Error::Mismatch { .. })) {
        // What an earlier run had left may be at fault: once more from the first byte.
        receive(client, remote, what, &part, progress)?;
        checked = check(remote, &part);
    }
    checked?;
    fs::rename(&part, blob).map_err(|source| Error::io(blob, source))
}

fn receive(
    client: &Client,
    remote: &Remote,
    what: &str,
    part: &Path,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<(), Error> {
    client.retry(&remote.url, || receive_once(client, remote, what, part, progress), || part_len(part))
}

/// Appends what is missing to `part`. What was received stays there when the connection breaks.
fn receive_once(
    client: &Client,
    remote: &Remote,
    what: &str,
    part: &Path,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<(), Failure> {
    let disk = |source: io::Error| Failure::Final(Error::io(part, source));
    let mut file = OpenOptions::new().create(true).read(true).append(true).open(part).map_err(disk)?;
    let mut offset = file.metadata().map_err(disk)?.len();
    if remote.size.is_none_or(|size| offset > size) {
        // Without a size nobody can tell whether the rest is missing.
        offset = restart(&mut file).map_err(disk)?;
    }
    if remote.size == Some(offset) {
        return Ok(());
    }
    let mut reply = client.get(&remote.url, what, offset)?;
    let status = reply.response.status();
    if status == StatusCode::RANGE_NOT_SATISFIABLE {
        restart(&mut file).map_err(disk)?;
        return Err(Failure::passing("the hub refused to resume the download"));
    }
    let is_rest = status == StatusCode::PARTIAL_CONTENT
        && header_text(reply.response.headers(), header::CONTENT_RANGE.as_str())
            .is_some_and(|range| starts_at(range, offset));
    if offset > 0 && !is_rest {
        if status == StatusCode::PARTIAL_CONTENT {
            restart(&mut file).map_err(disk)?;
            return Err(Failure::passing("the hub sent another range than the one asked for"));
        }
        offset = restart(&mut file).map_err(disk)?;
    }
    let limit = remote.size.unwrap_or(remote.max_bytes());
    let mut body = reply.response.body_mut().with_config().limit(u64::MAX).reader();
    let mut buffer = vec![0; 1 << 17];
    let mut received = offset;
    loop {
        progress(Progress { file: &remote.file, received, total: remote.size });
        let n = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Failure::passing(format!("the connection broke: {error}"))),
        };
        received += n as u64;
        if received > limit {
            restart(&mut file).map_err(disk)?;
            return Err(Failure::Final(mismatch(remote, "size", format!("over {limit}"), limit.to_string())));
        }
        file.write_all(&buffer[..n]).map_err(disk)?;
    }
    match remote.size {
        Some(size) if received < size => {
            Err(Failure::passing(format!("the connection broke at {received} of {size} bytes")))
        }
        _ => file.sync_all().map_err(disk),
    }
}

/// Compares with what the hub announced; a file that differs is deleted.
fn check(remote: &Remote, part: &Path) -> Result<(), Error> {
    let disk = |source: io::Error| Error::io(part, source);
    let Some(actual) = remote.digest.of_file(part).map_err(disk)? else {
        tracing::warn!(
            file = remote.file,
            etag = remote.digest.as_str(),
            "the hub gives no checksum: not verified"
        );
        return Ok(());
    };
    if actual == remote.digest.as_str() {
        return Ok(());
    }
    fs::remove_file(part).map_err(disk)?;
    Err(mismatch(remote, "digest", actual, remote.digest.as_str().to_owned()))
}

fn mismatch(remote: &Remote, what: &'static str, actual: String, expected: String) -> Error {
    Error::Mismatch { file: remote.file.clone(), what, actual, expected }
}

fn part_len(part: &Path) -> u64 {
    fs::metadata(part).map_or(0, |found| found.len())
}

fn restart(file: &mut File) -> io::Result<u64> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))
}

/// Whether `bytes 7-99/100` starts at 7.
fn starts_at(content_range: &str, offset: u64) -> bool {
    content_range
        .strip_prefix("bytes ")
        .and_then(|range| range.split('-').next())
        .and_then(|start| start.trim().parse().ok())
        == Some(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_honoured_only_from_the_byte_asked_for() {
        assert!(starts_at("bytes 7-99/100", 7));
        for wrong in ["bytes 0-99/100", "bytes */100", "7-99/100", ""] {
            assert!(!starts_at(wrong, 7), "{wrong}");
        }
    }
}

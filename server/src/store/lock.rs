//! One process for a folder: whoever comes second is told who was first.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process, thread,
    time::Duration,
};

use super::Error;
use crate::error::quoted;

const LOCK: &str = ".lock";
/// What is read of who has a folder.
const MAX_OWNER_BYTES: u64 = 200;
/// A child that is about to become another program has copies of its parent's files for a moment, and with them a lock that was given
/// back: it is asked for so often.
const N_TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(20);

/// A folder that this process has to itself, until this is dropped or the process ends, however it does.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes a folder that is there. `is_patient`: one that is about to become free is waited for.
    ///
    /// # Errors
    /// Another process has it, or the disk refuses the file. Some file systems know no locks; two servers of one folder are rare.
    pub(super) fn take(folder: &Path, is_patient: bool) -> Result<Self, Error> {
        let path = folder.join(LOCK);
        let refused = |source| Error::Io { path: path.clone(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).map_err(refused)?;
        let mut n_left = if is_patient { N_TRIES } else { 1 };
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => {
                    tracing::warn!(
                        "{}: nothing keeps other servers out of this folder: {error}",
                        folder.display()
                    );
                    break;
                }
                Err(TryLockError::WouldBlock) if n_left > 1 => {
                    n_left -= 1;
                    thread::sleep(PAUSE);
                }
                Err(TryLockError::WouldBlock) => {
                    let mut owner = String::new();
                    // Whom to look for: it helps, and nothing depends on it.
                    let _ = file.take(MAX_OWNER_BYTES).read_to_string(&mut owner);
                    return Err(Error::Taken { path: folder.to_owned(), owner: quoted(owner.trim()) });
                }
            }
        }
        // It is ours without a name as well, on a disk that is full.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", this_process()));
        Ok(Self { _file: file })
    }
}

/// What people know this process by. Folders may be on volumes that several machines share.
fn this_process() -> String {
    let (id, host) = (process::id(), fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default());
    match host.trim() {
        "" => format!("process {id}"),
        host => format!("process {id} on {host}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_disk_that_is_full_keeps_nobody_out() {
        let folder = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::symlink("/dev/full", folder.path().join(LOCK)).expect("made");
        let lock = Lock::take(folder.path(), true).expect("it is ours without a name");
        let refused = Lock::take(folder.path(), false).expect_err("it is taken");
        assert!(matches!(refused, Error::Taken { .. }), "{refused}");
        drop(lock);
    }
}

//! Where results go: standard output, or one file per input. Nothing else writes to standard output.

use std::{
    borrow::Cow,
    fs::{self, File},
    io::{self, Seek, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;
use models::Transcript;
use serde::Serialize;

use super::Usage;
use crate::render::{self, Format, Json, VerboseJson};

/// Whoever read standard output has closed it.
#[derive(Debug, thiserror::Error)]
#[error("standard output was closed")]
pub(super) struct Closed;

/// `text` without the control characters by which a file's name or a model could command a terminal.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    let commands = |c: char| c.is_control() && c != '\n' && c != '\t';
    if text.contains(commands) { Cow::Owned(text.replace(commands, "")) } else { Cow::Borrowed(text) }
}

/// Writes to standard output at once.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(printable(text).as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Closed.into()),
        result => result.context("standard output cannot be written"),
    }
}

/// Writes bytes to standard output at once.
pub(super) fn print_bytes(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Closed.into()),
        result => result.context("standard output cannot be written"),
    }
}

/// Writes a line to standard error; there is nobody to tell when that fails.
pub(super) fn status_line(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", printable(line));
}

/// Reports a failure.
pub(super) fn error_line(message: &str) {
    status_line(&format!("error: {message}"));
}

/// The transcript of one input, as the user wants it. `file` names it where several share one output.
pub(super) fn render(transcript: &Transcript, format: Format, file: Option<&str>) -> anyhow::Result<String> {
    Ok(match (format, file) {
        (Format::Text, None) => render::text(transcript),
        // One line each, as `grep` has it: `file: text`.
        (Format::Text, Some(file)) => {
            let words: Vec<_> = transcript.text.split_whitespace().collect();
            format!("{file}: {}\n", words.join(" "))
        }
        (Format::Json, None) => serde_json::to_string(&Json::from(transcript))? + "\n",
        (Format::Json, Some(file)) => Named { file, body: Json::from(transcript) }.line()?,
        (Format::VerboseJson, None) => serde_json::to_string_pretty(&VerboseJson::from(transcript))? + "\n",
        (Format::VerboseJson, Some(file)) => Named { file, body: VerboseJson::from(transcript) }.line()?,
        (Format::Srt, _) => render::srt(transcript),
        (Format::Vtt, _) => render::vtt(transcript),
    })
}

#[derive(Serialize)]
struct Named<'a, T> {
    file: &'a str,
    #[serde(flatten)]
    body: T,
}

impl<T: Serialize> Named<'_, T> {
    /// JSON lines: one object, one line.
    fn line(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string(self)? + "\n")
    }
}

/// Columns as wide as their widest cell.
pub(super) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: [usize; N] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let mut table = String::new();
    for row in rows {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        table.push_str(cells.join("  ").trim_end());
        table.push('\n');
    }
    table
}

/// Refuses a place where something is.
pub(super) fn check_new(path: &Path) -> Result<(), Usage> {
    let message = || format!("{} is there already; name another place", path.display());
    if path.exists() { Err(Usage(message())) } else { Ok(()) }
}

/// Writes a file or a folder that is not there yet, whole or not at all. `fill` writes it under another name beside it.
pub(super) fn write_new(path: &Path, fill: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
    check_new(path)?;
    let part = Part::beside(path).with_context(|| unwritable(path))?;
    fill(&part.0)?;
    fs::rename(&part.0, path).with_context(|| unwritable(path))
}

/// Writes a whole file or none: what stands at `path` is replaced at the end.
pub(super) fn write_file(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut file = Unfinished::create(path)?;
    file.write(text.as_bytes())?;
    file.finish(&[])
}

/// A file that is written piece by piece under another name. It gets its own when it is whole; before that it is gone when it is
/// dropped, and stays when the program is ended.
pub(super) struct Unfinished<'a> {
    path: &'a Path,
    part: Part,
    file: File,
}

impl<'a> Unfinished<'a> {
    /// Begins the file that will stand at `path`.
    pub(super) fn create(path: &'a Path) -> anyhow::Result<Self> {
        let create = || -> io::Result<Self> {
            let part = Part::beside(path)?;
            let file = File::create(&part.0)?;
            Ok(Self { path, part, file })
        };
        create().with_context(|| unwritable(path))
    }

    /// Appends to it.
    pub(super) fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.file.write_all(bytes).with_context(|| unwritable(self.path))
    }

    /// Writes `head` over its beginning, and puts it in the place of what stands at its path.
    pub(super) fn finish(mut self, head: &[u8]) -> anyhow::Result<()> {
        let mut finish = || -> io::Result<()> {
            self.file.rewind()?;
            self.file.write_all(head)?;
            self.file.sync_all()?;
            fs::rename(&self.part.0, self.path)
        };
        finish().with_context(|| unwritable(self.path))
    }
}

fn unwritable(path: &Path) -> String {
    format!("{} cannot be written", path.display())
}

/// A file that does not outlive a failure.
struct Part(PathBuf);

impl Part {
    /// A name of this process's own beside `path`, whose folder is there from now on.
    fn beside(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok(Self(path.with_file_name(format!(".{name}.{}.part", std::process::id()))))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // After the rename there is none.
        let _ = if self.0.is_dir() { fs::remove_dir_all(&self.0) } else { fs::remove_file(&self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_commands_the_terminal() {
        assert_eq!(printable("a\x1b[31mred\r\n\tb\u{9b}2J"), "a[31mred\n\tb2J");
        assert!(matches!(printable("سلام نړۍ\n"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_file_has_its_name_when_it_is_whole_and_leaves_nothing_when_it_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("new/a.txt");
        let mut file = Unfinished::create(&path).expect("begun");
        file.write(b"..cd").expect("written");
        assert!(!path.exists());
        drop(file);
        assert_eq!(fs::read_dir(folder.path().join("new")).expect("a folder").count(), 0);
        let mut file = Unfinished::create(&path).expect("begun");
        file.write(b"..c").expect("written");
        file.write(b"d").expect("written");
        file.finish(b"ab").expect("finished");
        assert_eq!(fs::read(&path).expect("a file"), b"abcd");
        assert_eq!(fs::read_dir(folder.path().join("new")).expect("a folder").count(), 1);
        let below = path.join("b.txt");
        let message = Unfinished::create(&below).err().expect("no folder").to_string();
        assert!(message.ends_with("b.txt cannot be written"), "{message}");
    }
}

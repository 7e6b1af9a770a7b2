//! Which recordings the arguments mean, what their results are called, and what comes through a pipe.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    io::{self, IsTerminal, Read},
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, bail};
use audio::EXTENSIONS;

use super::Usage;

/// One recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Input {
    /// The file; `None` is the standard input.
    pub(super) path: Option<PathBuf>,
    /// Its place below the directory that was given, or its file name.
    relative: PathBuf,
}

/// What the arguments mean.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    /// In the order given, directories sorted.
    pub(super) found: Vec<Input>,
    /// What cannot be read, and why.
    pub(super) failures: Vec<String>,
    /// Whether the results are told apart by name: a directory counts as several even when it holds one.
    pub(super) are_several: bool,
}

impl Input {
    /// The path as the user wrote it.
    pub(super) fn name(&self) -> String {
        self.path.as_ref().map_or_else(|| "-".to_owned(), |path| path.display().to_string())
    }
}

/// Finds the recordings. A recording that is named twice is taken once.
pub(super) fn collect(arguments: &[PathBuf]) -> Inputs {
    let mut inputs = Inputs { are_several: arguments.len() > 1, ..Inputs::default() };
    for argument in arguments {
        if argument.as_os_str() == "-" {
            inputs.found.push(Input { path: None, relative: "stdin".into() });
        } else if argument.is_dir() {
            inputs.are_several = true;
            let mut paths = Vec::new();
            walk(argument, &mut paths, &mut inputs.failures);
            if paths.is_empty() {
                let looked = EXTENSIONS.join(", ");
                inputs
                    .failures
                    .push(format!("{}: holds no recordings (looked for {looked})", argument.display()));
            }
            inputs.found.extend(paths.into_iter().map(|path| {
                let relative = path.strip_prefix(argument).unwrap_or(&path).to_owned();
                Input { path: Some(path), relative }
            }));
        } else {
            match fs::metadata(argument) {
                Ok(_) => inputs.found.push(Input {
                    relative: argument.file_name().map_or_else(|| argument.clone(), PathBuf::from),
                    path: Some(argument.clone()),
                }),
                Err(error) => inputs.failures.push(format!("{}: {}", argument.display(), reason(&error))),
            }
        }
    }
    let mut seen = BTreeSet::new();
    inputs.found.retain(|input| seen.insert(input.path.clone()));
    inputs
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "not permitted".to_owned(),
        _ => error.to_string(),
    }
}

/// All of what can be read of `reader`, whatever it is: a pipe says nothing of its length. `limit` says of how
/// many bytes that is: "that a setting allows".
pub(super) fn read_at_most(reader: impl Read, max_bytes: u64, limit: &str) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes).context("cannot be read")?;
    if bytes.len() as u64 > max_bytes {
        bail!("more than the {max_bytes} bytes {limit}");
    }
    Ok(bytes)
}

/// The same of the standard input.
pub(super) fn read_stdin(max_bytes: u64, limit: &str) -> anyhow::Result<Vec<u8>> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        bail!("the standard input is a terminal; pipe something into it");
    }
    let bytes = read_at_most(stdin.lock(), max_bytes, limit)?;
    if bytes.is_empty() {
        bail!("the standard input is empty");
    }
    Ok(bytes)
}

/// Recordings below `directory` in order of their paths. Links to directories are not followed: they may lead in circles.
fn walk(directory: &Path, paths: &mut Vec<PathBuf>, failures: &mut Vec<String>) {
    let mut entries: Vec<_> = match fs::read_dir(directory) {
        Ok(entries) => entries
            .filter_map(|entry| {
                entry
                    .map_err(|error| failures.push(format!("{}: {}", directory.display(), reason(&error))))
                    .ok()
            })
            .collect(),
        Err(error) => return failures.push(format!("{}: {}", directory.display(), reason(&error))),
    };
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&path, paths, failures);
        } else if has_known_extension(&path) && path.is_file() {
            paths.push(path);
        }
    }
}

fn has_known_extension(path: &Path) -> bool {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
}

/// A file below `out` for each input, all different: `<stem>.<ext>`, in its sub-directory if it was found in one;
/// where these collide the path as it was given; where those do the whole file name before the extension.
pub(super) fn output_paths(inputs: &[Input], out: &Path, extension: &str) -> Result<Vec<PathBuf>, Usage> {
    let given = |input: &Input| -> PathBuf {
        let path = input.path.as_deref().unwrap_or(&input.relative);
        path.components().filter(|part| matches!(part, Component::Normal(_))).collect()
    };
    let append = |path: PathBuf| {
        let mut name = OsString::from(path);
        name.push(".");
        name.push(extension);
        PathBuf::from(name)
    };
    let candidates: [&dyn Fn(&Input) -> PathBuf; 4] = [
        &|input| append(input.relative.with_extension("")),
        &|input| append(given(input).with_extension("")),
        &|input| append(input.relative.clone()),
        &|input| append(given(input)),
    ];
    let mut chosen: Vec<PathBuf> = inputs.iter().map(candidates[0]).collect();
    for candidate in &candidates[1..] {
        for index in collisions(&chosen) {
            chosen[index] = candidate(&inputs[index]);
        }
    }
    match collisions(&chosen).as_slice() {
        [first, second, ..] => Err(Usage(format!(
            "{} and {} would both be written to {}; transcribe them into different directories",
            inputs[*first].name(),
            inputs[*second].name(),
            out.join(&chosen[*first]).display()
        ))),
        _ => Ok(chosen.into_iter().map(|path| out.join(path)).collect()),
    }
}

/// The positions whose path is not theirs alone, equal paths side by side. Some file systems ignore case.
fn collisions(paths: &[PathBuf]) -> Vec<usize> {
    let mut by_path = BTreeMap::<String, Vec<usize>>::new();
    for (index, path) in paths.iter().enumerate() {
        by_path.entry(path.to_string_lossy().to_lowercase()).or_default().push(index);
    }
    by_path.into_values().filter(|indices| indices.len() > 1).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(inputs: &[(&str, &str)]) -> Vec<String> {
        let inputs: Vec<_> = inputs
            .iter()
            .map(|(path, relative)| Input { path: Some(path.into()), relative: relative.into() })
            .collect();
        let paths = output_paths(&inputs, Path::new("out"), "txt").expect("different");
        paths.iter().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn outputs_are_named_after_their_inputs() {
        assert_eq!(
            names(&[("x/a.b.wav", "a.b.wav"), ("d/s/c.mp3", "s/c.mp3")]),
            ["out/a.b.txt", "out/s/c.txt"]
        );
    }

    #[test]
    fn collisions_are_told_apart() {
        assert_eq!(
            names(&[("../x/a.wav", "a.wav"), ("/y/a.wav", "a.wav"), ("b.wav", "b.wav")]),
            ["out/x/a.txt", "out/y/a.txt", "out/b.txt"]
        );
        assert_eq!(names(&[("a.wav", "a.wav"), ("A.mp3", "A.mp3")]), ["out/a.wav.txt", "out/A.mp3.txt"]);
        let same =
            ["a.wav", "../a.wav"].map(|path| Input { path: Some(path.into()), relative: "a.wav".into() });
        let message = output_paths(&same, Path::new("out"), "txt").expect_err("equal").to_string();
        assert!(message.contains("../a.wav") && message.contains("out/a.wav.txt"), "{message}");
    }

    #[test]
    fn directories_are_read_in_order_and_other_files_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        fs::create_dir_all(root.join("b/c")).expect("created");
        for file in ["z.WAV", "a.flac", "notes.txt", "b/c/x.ogg", "b/wav"] {
            fs::write(root.join(file), "").expect("written");
        }
        let inputs = collect(&[root.to_owned(), root.join("a.flac"), root.join("none.wav")]);
        let relative: Vec<_> =
            inputs.found.iter().map(|input| input.relative.display().to_string()).collect();
        assert_eq!(relative, ["a.flac", "b/c/x.ogg", "z.WAV"]);
        assert!(inputs.are_several && inputs.failures[0].ends_with("none.wav: no such file or directory"));
    }

    #[test]
    fn what_never_ends_is_read_so_far_and_no_further() {
        assert_eq!(read_at_most(&b"text"[..], 4, "that a setting allows").expect("read"), b"text");
        for endless in [Box::new(io::repeat(b'x')) as Box<dyn Read>, Box::new(&b"texts"[..])] {
            let message = read_at_most(endless, 4, "that a setting allows").expect_err("refused").to_string();
            assert_eq!(message, "more than the 4 bytes that a setting allows");
        }
    }
}

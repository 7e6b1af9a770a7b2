//! Texts with their translations and no recordings: a table of two columns named after its languages (`en-ps.tsv`), or two files
//! whose lines belong together (`train.en` and `train.ps`, as Moses, WMT and OPUS have them).

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Found, Listing, Options, Split, folder,
    table::{Style, Table},
};
use crate::data::manifest::{Cut, Error, Reason, Row};

/// Extensions of two letters that are no languages.
const NO_LANGUAGES: [&str; 12] = ["bz", "cc", "db", "go", "gz", "hh", "js", "md", "py", "rs", "sh", "xz"];

/// Whether a path is a table, or a folder that holds texts with their translations.
pub(super) fn matches(path: &Path) -> bool {
    if path.is_dir() {
        texts(path).is_ok_and(|texts| !texts.is_empty())
    } else {
        table_languages(path).is_some()
    }
}

/// A table, or files whose lines belong together, by what their names have in common.
enum Text {
    Table { path: PathBuf, languages: [String; 2] },
    Lines { stem: String, files: Vec<(String, PathBuf)> },
}

fn texts(folder: &Path) -> Result<Vec<Text>, Error> {
    let mut texts = Vec::new();
    let mut by_stem = BTreeMap::<String, Vec<(String, PathBuf)>>::new();
    for path in folder::entries(folder)?.into_iter().filter(|path| path.is_file()) {
        if let Some(languages) = table_languages(&path) {
            texts.push(Text::Table { path, languages });
        } else if let Some((stem, language)) = stem_and_language(&path) {
            by_stem.entry(stem).or_default().push((language, path));
        }
    }
    let aligned = by_stem.into_iter().filter(|(_, files)| files.len() > 1);
    texts.extend(aligned.map(|(stem, files)| Text::Lines { stem, files }));
    Ok(texts)
}

/// The languages of `en-ps.tsv`, or of `train.en-ps.tsv`.
fn table_languages(path: &Path) -> Option<[String; 2]> {
    let stem = path.file_name()?.to_str()?.strip_suffix(".tsv")?;
    stem.split('.').find_map(pair)
}

/// `en-ps`: from what into what.
fn pair(name: &str) -> Option<[String; 2]> {
    let (from, into) = name.split_once('-')?;
    (is_language(from) && is_language(into) && from != into).then(|| [from.to_owned(), into.to_owned()])
}

/// `train` and `ps` of `train.ps`. Three letters are more often a type of file than a language: they need a script, as in
/// `train.pus_Arab`, or a name that says so, as `train.eng-pus.pus`.
fn stem_and_language(path: &Path) -> Option<(String, String)> {
    let (stem, language) = path.file_name()?.to_str()?.rsplit_once('.')?;
    let is_named =
        stem.split('.').find_map(pair).is_some_and(|pair| pair.iter().any(|code| code == language));
    let is_plain = (language.len() != 3 && !NO_LANGUAGES.contains(&language)) || is_named;
    (is_language(language) && is_plain).then(|| (stem.to_owned(), language.to_owned()))
}

/// Whether something looks like a language's code, `ps` or `zho_Hans`.
fn is_language(code: &str) -> bool {
    let (code, script) = code.split_once('_').unwrap_or((code, "-"));
    (2..=3).contains(&code.len())
        && code.bytes().all(|byte| byte.is_ascii_lowercase())
        && (script == "-" || (!script.is_empty() && script.bytes().all(|byte| byte.is_ascii_alphanumeric())))
}

/// Lists all pairs. Where names do not say which language comes first, the one of the options does, else the alphabet.
pub(super) fn list(path: &Path, options: &Options) -> Result<Listing, Error> {
    let texts = if path.is_dir() {
        texts(path)?
    } else {
        let table = table_languages(path).map(|languages| Text::Table { path: path.to_owned(), languages });
        table.into_iter().collect()
    };
    if texts.is_empty() {
        let message = "holds no texts with translations: en-ps.tsv, or train.en beside train.ps";
        return Err(Error::file(path, message));
    }
    let mut listing = Listing::default();
    for text in texts {
        match text {
            Text::Table { path, languages } => read_table(&path, &languages, &mut listing)?,
            Text::Lines { stem, files } => read_lines(&stem, &files, options, &mut listing)?,
        }
    }
    Ok(listing)
}

fn read_table(path: &Path, languages: &[String; 2], listing: &mut Listing) -> Result<(), Error> {
    let mut table = Table::open_without_header(path, Style::Tsv)?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let pairs = Pairs::new(&stem, languages, table.file().clone(), listing);
    while let Some(row) = table.next() {
        match row {
            Ok((line, row)) => match (row.get(0), row.get(1), row.len()) {
                (Some(text), Some(translation), 2) => pairs.add(line, text, translation, listing),
                (.., n_columns) => {
                    let message = format!("{n_columns} columns; expected a text and its translation");
                    pairs.reject(line, Reason::BadRow(message), listing);
                }
            },
            Err(rejected) => {
                listing.rejected_splits.extend(pairs.split);
                listing.rejected.push(rejected);
            }
        }
    }
    Ok(())
}

fn read_lines(
    stem: &str,
    files: &[(String, PathBuf)],
    options: &Options,
    listing: &mut Listing,
) -> Result<(), Error> {
    let [(first, first_path), (second, second_path)] = files else {
        let names: Vec<_> = files.iter().map(|(language, _)| format!("{stem}.{language}")).collect();
        let folder = files[0].1.parent().unwrap_or(Path::new(""));
        let message = format!("{} are in {} languages: leave two in a folder", names.join(", "), files.len());
        return Err(Error::file(folder, message));
    };
    let stated = stem.split('.').find_map(pair);
    let is_turned = match (&stated, &options.language) {
        (Some([from, into]), _) if [from, into] == [second, first] => true,
        (Some([from, into]), _) if [from, into] == [first, second] => false,
        (_, Some(language)) if language == second => true,
        (_, Some(language)) if language == first => false,
        _ => {
            listing.notes.push(format!(
                "{stem}: taken as translated from {first} into {second}; --language {second} turns it round."
            ));
            false
        }
    };
    let read = |path: &Path| fs::read(path).map_err(|error| Error::io(path, &error));
    let (first_bytes, second_bytes) = (read(first_path)?, read(second_path)?);
    let (first_lines, second_lines) = (lines(&first_bytes), lines(&second_bytes));
    if first_lines.len() != second_lines.len() {
        let message = format!(
            "has {} lines, and {} has {}: each is to be the translation of the other's in its place",
            first_lines.len(),
            second_path.display(),
            second_lines.len()
        );
        return Err(Error::file(first_path, message));
    }
    let (from, into) = if is_turned { (second, first) } else { (first, second) };
    let pairs = Pairs::new(stem, &[from.clone(), into.clone()], first_path.as_path().into(), listing);
    for (line, texts) in (1..).zip(first_lines.into_iter().zip(second_lines)) {
        match (str::from_utf8(texts.0), str::from_utf8(texts.1)) {
            (Ok(first), Ok(second)) if is_turned => pairs.add(line, second, first, listing),
            (Ok(first), Ok(second)) => pairs.add(line, first, second, listing),
            (first_text, _) => {
                let language = if first_text.is_err() { first } else { second };
                let reason = Reason::BadRow(format!("{stem}.{language}: no UTF-8"));
                pairs.reject(line, reason, listing);
            }
        }
    }
    Ok(())
}

/// The lines of a file, without the mark of UTF-8 that Windows' editors make.
fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    if bytes.is_empty() { Vec::new() } else { bytes.split(|byte| *byte == b'\n').collect() }
}

/// What the pairs of a file have in common.
struct Pairs {
    stem: String,
    languages: [Arc<str>; 2],
    split: Option<Split>,
    file: Arc<Path>,
}

impl Pairs {
    fn new(stem: &str, [from, into]: &[String; 2], file: Arc<Path>, listing: &mut Listing) -> Self {
        let languages = [listing.names.get(from), listing.names.get(into)];
        Self { stem: stem.to_owned(), languages, split: Split::in_name(stem), file }
    }

    fn add(&self, line: u64, text: &str, translation: &str, listing: &mut Listing) {
        let (text, translation) = (text.trim(), translation.trim());
        for (text, name) in [(text, "text"), (translation, "translation")] {
            if text.is_empty() {
                return self.reject(line, Reason::EmptyText(name), listing);
            }
        }
        let [language, target_language] = self.languages.clone();
        let cut = Cut {
            id: format!("{}-{line}", self.stem).into(),
            audio: Path::new("").into(),
            start_secs: 0.0,
            duration_secs: 0.0,
            channel: None,
            text: text.into(),
            language: Some(language),
            speaker: None,
            target_text: Some(translation.into()),
            target_language: Some(target_language),
            extra: None,
        };
        let row = Row { cut, has_duration: false };
        listing.found.push(Found { row, split: self.split, file: self.file.clone(), line: Some(line) });
    }

    fn reject(&self, line: u64, reason: Reason, listing: &mut Listing) {
        listing.rejected_splits.extend(self.split);
        listing.reject(&self.file, Some(line), reason);
    }
}

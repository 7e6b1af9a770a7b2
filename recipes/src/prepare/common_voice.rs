//! Mozilla Common Voice: `clips/` and tables of a language, as its archives hold them (`cv-corpus-<version>/<locale>/`).

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{
    Found, Listing, Options, Split, folder,
    table::{Style, Table},
};
use crate::data::manifest::{Cut, Error, Extra, Row};

const TABLES: [(&str, Split); 3] =
    [("train.tsv", Split::Train), ("dev.tsv", Split::Dev), ("test.tsv", Split::Test)];
/// What speakers said about themselves, kept where they did.
const KEPT: [&str; 4] = ["gender", "age", "accents", "variant"];

pub(super) fn matches(folder: &Path) -> bool {
    has_tables(folder) || !locales(folder).is_empty()
}

fn has_tables(folder: &Path) -> bool {
    let is_there = |name: &str| folder.join(name).is_file();
    folder.join("clips").is_dir()
        && (is_there("validated.tsv") || TABLES.iter().any(|(name, _)| is_there(name)))
}

/// The languages of an archive that holds several.
fn locales(folder: &Path) -> Vec<PathBuf> {
    folder::entries(folder).unwrap_or_default().into_iter().filter(|path| has_tables(path)).collect()
}

/// Lists the splits' tables. Without `train.tsv` the validated recordings of sentences and speakers that no other table has are
/// the training set.
pub(super) fn list(folder: &Path, options: &Options) -> Result<Listing, Error> {
    let folder = choose(folder, options.language.as_deref())?;
    let durations = durations(&folder.join("clip_durations.tsv"))?;
    let mut listing = Listing::default();
    let mut held_out = HeldOut::default();
    for (name, split) in TABLES {
        let table = folder.join(name);
        if table.is_file() {
            read(&table, split, &durations, &mut listing, None)?;
        }
    }
    let has_train = folder.join("train.tsv").is_file();
    let validated = folder.join("validated.tsv");
    if !has_train && validated.is_file() {
        held_out.add(&listing.found);
        read(&validated, Split::Train, &durations, &mut listing, Some(&held_out))?;
        listing
            .notes
            .push("No train.tsv: what is validated and neither in dev nor in test was taken.".to_owned());
    }
    Ok(listing)
}

fn choose(folder: &Path, language: Option<&str>) -> Result<PathBuf, Error> {
    if has_tables(folder) {
        return Ok(folder.to_owned());
    }
    let locales = locales(folder);
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let names: Vec<_> = locales.iter().map(|path| name(path)).collect();
    match (locales.as_slice(), language) {
        ([], _) => {
            Err(Error::file(folder, "holds no clips/ beside train.tsv, dev.tsv, test.tsv or validated.tsv"))
        }
        ([only], None) => Ok(only.clone()),
        (_, None) => Err(Error::file(folder, format!("holds {}; choose by --language", names.join(", ")))),
        (_, Some(language)) => {
            let chosen = locales.iter().find(|path| name(path).eq_ignore_ascii_case(language));
            chosen.cloned().ok_or_else(|| {
                Error::file(folder, format!("holds no language {language}, but {}", names.join(", ")))
            })
        }
    }
}

/// Speakers and sentences that training must not see, and with them the clips of dev and test.
#[derive(Default)]
struct HeldOut {
    speakers: HashSet<Box<str>>,
    texts: HashSet<Box<str>>,
}

impl HeldOut {
    fn add(&mut self, found: &[Found]) {
        for Found { row, .. } in found {
            self.speakers.extend(row.cut.speaker.as_deref().map(Box::from));
            self.texts.insert(row.cut.text.clone());
        }
    }

    fn has(&self, cut: &Cut) -> bool {
        self.texts.contains(&cut.text)
            || cut.speaker.as_deref().is_some_and(|speaker| self.speakers.contains(speaker))
    }
}

/// Seconds by clip, where the release states them. A row that is wrong leaves its clip to be measured.
fn durations(path: &Path) -> Result<HashMap<Box<str>, f64>, Error> {
    let mut durations = HashMap::new();
    if !path.is_file() {
        return Ok(durations);
    }
    let mut table = Table::open(path, Style::Tsv)?;
    let (clip, millis) = (table.required(&["clip"])?, table.required(&["duration[ms]", "duration"])?);
    while let Some(row) = table.next() {
        let Ok((_, row)) = row else { continue };
        let millis = row[millis].trim().parse::<f64>().ok().filter(|millis| *millis > 0.0);
        if let Some(secs) = millis.map(|millis| millis / 1e3).filter(|secs| *secs <= Cut::MAX_SECS) {
            durations.insert(row[clip].into(), secs);
        }
    }
    Ok(durations)
}

fn read(
    path: &Path,
    split: Split,
    durations: &HashMap<Box<str>, f64>,
    listing: &mut Listing,
    held_out: Option<&HeldOut>,
) -> Result<(), Error> {
    let mut table = Table::open(path, Style::Tsv)?;
    let file = table.file().clone();
    let clips = path.with_file_name("clips");
    let (clip, sentence) = (table.required(&["path"])?, table.required(&["sentence"])?);
    let (speaker, locale) = (table.column(&["client_id"]), table.column(&["locale"]));
    let kept: Vec<_> = KEPT.iter().filter_map(|name| Some((*name, table.column(&[name])?))).collect();
    while let Some(row) = table.next() {
        let (line, row) = match row {
            Ok(row) => row,
            Err(rejected) => {
                listing.rejected_splits.insert(split);
                listing.rejected.push(rejected);
                continue;
            }
        };
        let value =
            |column: Option<usize>| column.map(|column| row[column].trim()).filter(|value| !value.is_empty());
        let extra: Extra = kept
            .iter()
            .filter_map(|(name, column)| Some(((*name).to_owned(), Value::from(value(Some(*column))?))))
            .collect();
        let name = row[clip].trim();
        // The first releases wrote names without their extension.
        let name =
            if Path::new(name).extension().is_some() { name.to_owned() } else { format!("{name}.mp3") };
        let duration_secs = durations.get(name.as_str()).copied();
        let cut = Cut {
            id: name.rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem).into(),
            audio: clips.join(&name).into(),
            start_secs: 0.0,
            duration_secs: duration_secs.unwrap_or(0.0),
            channel: None,
            text: row[sentence].trim().into(),
            language: value(locale).map(|locale| listing.names.get(locale)),
            speaker: value(speaker).map(|speaker| listing.names.get(speaker)),
            target_text: None,
            target_language: None,
            extra: (!extra.is_empty()).then(|| Box::new(extra)),
        };
        if held_out.is_some_and(|held_out| held_out.has(&cut)) {
            continue;
        }
        let row = Row { cut, has_duration: duration_secs.is_some() };
        listing.found.push(Found { row, split: Some(split), file: file.clone(), line: Some(line) });
    }
    Ok(())
}

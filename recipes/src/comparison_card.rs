//! Models beside each other in the card of a run: a table that stays there when the run goes on and its card is written anew.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::page::table_with_notes;
use crate::run::CARD;

/// The table, in the run's folder.
const NAME: &str = "comparison.html";
const START: &str = "<section id=\"comparison\">\n";
const END: &str = "</section>\n";
/// What the table stands before in a card that had none.
pub(crate) const CURVES: &str = "<h2>Curves</h2>\n";

/// The place for a comparison in a run's folder.
#[derive(Debug)]
pub struct ComparisonCard {
    dir: PathBuf,
    card: String,
}

impl ComparisonCard {
    /// That of the run in `dir`.
    ///
    /// # Errors
    /// A folder without a run card.
    pub fn of_run(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(CARD);
        let card = fs::read_to_string(&path).map_err(|error| {
            Error::file(&path, format!("{error}; name the folder of a run (speechd train --out)"))
        })?;
        if !card.contains(CURVES) {
            return Err(Error::file(&path, "is no run card"));
        }
        Ok(Self { dir: dir.to_owned(), card })
    }

    /// Puts a table, whose first row names the columns, and notes below it into the card, in the place of an earlier one.
    ///
    /// # Errors
    /// What the disk refuses.
    pub fn put<const N: usize>(&self, rows: &[[String; N]], notes: &[String]) -> Result<(), Error> {
        let table = table_with_notes(rows, notes);
        let section = format!("{START}<h2>Beside other models</h2>\n{table}{END}");
        let write = |name: &str, text: &str| {
            let path = self.dir.join(name);
            fs::write(&path, text).map_err(|error| Error::file(&path, error))
        };
        write(NAME, &section)?;
        write(CARD, &with_section(&self.card, &section))
    }
}

/// What was compared in the run's folder, as a part of its card.
pub(crate) fn section(dir: &Path) -> String {
    fs::read_to_string(dir.join(NAME)).unwrap_or_default()
}

fn with_section(card: &str, section: &str) -> String {
    let start = card.find(START);
    let end = start.and_then(|start| Some(start + card[start..].find(END)? + END.len()));
    match (start, end) {
        (Some(start), Some(end)) => [&card[..start], section, &card[end..]].concat(),
        _ => card.replacen(CURVES, &format!("{section}{CURVES}"), 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_comparison_takes_the_place_of_an_earlier_one() {
        let dir = tempfile::tempdir().expect("a folder");
        assert!(ComparisonCard::of_run(dir.path()).is_err());
        let path = dir.path().join(CARD);
        fs::write(&path, "<p>other</p>").expect("written");
        assert!(ComparisonCard::of_run(dir.path()).is_err());
        fs::write(&path, format!("<h1>a</h1>\n{CURVES}<svg/>")).expect("written");
        for name in ["first", "<second>"] {
            let rows = [["MODEL".to_owned()], [name.to_owned()]];
            ComparisonCard::of_run(dir.path())
                .expect("a card")
                .put(&rows, &["a & b".to_owned()])
                .expect("put");
        }
        let card = fs::read_to_string(&path).expect("read");
        let section = section(dir.path());
        assert_eq!(card, format!("<h1>a</h1>\n{section}{CURVES}<svg/>"));
        assert!(
            section.contains("&lt;second&gt;") && section.contains("a &amp; b") && !section.contains("first")
        );
    }
}

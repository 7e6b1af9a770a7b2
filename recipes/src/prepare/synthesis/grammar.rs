//! Texts with their translations out of a grammar whose rules have both sides: classes of words and phrases, whose rows hold rows of
//! other classes. `recipes/phrases_en_ps/grammar.txt` says how it is written.

use rand_chacha::rand_core::RngCore;

use super::phrases::Phrase;
use crate::data::{manifest::Error, shuffle::below};

/// The classes, each made of those before it.
pub(super) struct Grammar(Vec<Class>);

struct Class {
    name: &'static str,
    columns: Vec<&'static str>,
    rows: Vec<Row>,
}

struct Row {
    /// The classes that are drawn from for this row, once for each name in it.
    slots: Vec<(&'static str, usize)>,
    cells: Vec<Vec<Part>>,
}

/// A part of a cell.
enum Part {
    Text(&'static str),
    /// A column of what was drawn for a slot.
    Named {
        slot: usize,
        column: usize,
    },
    /// The column of what was drawn for a slot whose name stands in a column of another.
    By {
        slot: usize,
        other: usize,
        column: usize,
    },
}

/// A row that was drawn: its place in its class, and its cells.
struct Drawn {
    row: usize,
    cells: Vec<String>,
}

impl Grammar {
    /// Reads a grammar.
    ///
    /// # Errors
    /// The first line that is none of one.
    pub(super) fn parse(text: &'static str) -> Result<Self, Error> {
        let mut grammar = Self(Vec::new());
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.trim();
            if !text.is_empty() && !text.starts_with('#') {
                let added = grammar.add(text);
                added.map_err(|message| Error::Corpus(format!("grammar, line {line}: {message}")))?;
            }
        }
        match grammar.0.last() {
            Some(last) if last.columns.len() == 2 => Ok(grammar),
            _ => Err(Error::Corpus("grammar: its last class has no two columns".to_owned())),
        }
    }

    fn add(&mut self, line: &'static str) -> Result<(), String> {
        if let Some(header) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            let (name, columns) = header.split_once(':').ok_or("no columns")?;
            let columns = columns.split_whitespace().collect();
            self.0.push(Class { name, columns, rows: Vec::new() });
            return Ok(());
        }
        let (class, before) = self.0.split_last_mut().ok_or("a row before its class")?;
        let mut row = Row { slots: Vec::new(), cells: Vec::new() };
        for cell in line.split('|') {
            let parts = parts(cell.trim(), before, &mut row.slots)?;
            row.cells.push(parts);
        }
        if row.cells.len() != class.columns.len() {
            return Err(format!("{} cells for {} columns", row.cells.len(), class.columns.len()));
        }
        for (_, class) in &row.slots {
            let n_drawn = row.slots.iter().filter(|(_, other)| other == class).count();
            if n_drawn > before[*class].rows.len() {
                return Err(format!("[{}] has fewer rows than are drawn", before[*class].name));
            }
        }
        class.rows.push(row);
        Ok(())
    }

    /// Draws a text with its translation: a row of the last class.
    ///
    /// # Errors
    /// A row that names a column which its class lacks.
    pub(super) fn draw(&self, rng: &mut impl RngCore) -> Result<Phrase, Error> {
        let drawn = self.draw_of(self.0.len() - 1, &[], rng)?;
        let mut cells = drawn.cells.into_iter();
        let mut next = || cells.next().unwrap_or_default();
        Ok(Phrase { text: next(), translation: next() })
    }

    /// Draws a row of a class, none of those that are taken.
    fn draw_of(&self, class: usize, taken: &[usize], rng: &mut impl RngCore) -> Result<Drawn, Error> {
        let rows = &self.0[class].rows;
        let at = loop {
            let at = below(rows.len() as u64, rng) as usize;
            if !taken.contains(&at) {
                break at;
            }
        };
        let row = &rows[at];
        let mut drawn = Vec::<Drawn>::new();
        for (_, class) in &row.slots {
            let same = row.slots.iter().zip(&drawn).filter(|((_, other), _)| other == class);
            let taken: Vec<_> = same.map(|(_, drawn)| drawn.row).collect();
            drawn.push(self.draw_of(*class, &taken, rng)?);
        }
        let write = |part: &Part| match part {
            Part::Text(text) => Ok(*text),
            Part::Named { slot, column } => Ok(&*drawn[*slot].cells[*column]),
            Part::By { slot, other, column } => {
                let (class, name) = (&self.0[row.slots[*slot].1], &drawn[*other].cells[*column]);
                let column = class.columns.iter().position(|column| column == name).ok_or_else(|| {
                    Error::Corpus(format!("grammar: [{}] has no column `{name}`", class.name))
                })?;
                Ok(&*drawn[*slot].cells[column])
            }
        };
        let cells = row.cells.iter().map(|parts| parts.iter().map(write).collect::<Result<_, Error>>());
        Ok(Drawn { row: at, cells: cells.collect::<Result<_, Error>>()? })
    }
}

/// The parts of a cell; the slots in it are added to those of its row.
fn parts(
    cell: &'static str,
    classes: &[Class],
    slots: &mut Vec<(&'static str, usize)>,
) -> Result<Vec<Part>, String> {
    let (mut parts, mut rest) = (Vec::new(), cell);
    while let Some((text, after)) = rest.split_once('{') {
        let (slot, after) = after.split_once('}').ok_or("a slot without its end")?;
        parts.push(Part::Text(text));
        parts.push(match slot.split_once(':') {
            Some((name, other)) => {
                let (slot, _) = place(name, classes, slots)?;
                let (other, column) = named(other, classes, slots)?;
                Part::By { slot, other, column }
            }
            None => {
                let (slot, column) = named(slot, classes, slots)?;
                Part::Named { slot, column }
            }
        });
        rest = after;
    }
    parts.push(Part::Text(rest));
    Ok(parts)
}

/// The slot and the column of `thing.one`.
fn named(
    slot: &'static str,
    classes: &[Class],
    slots: &mut Vec<(&'static str, usize)>,
) -> Result<(usize, usize), String> {
    let (name, column) = slot.split_once('.').ok_or_else(|| format!("{{{slot}}} names no column"))?;
    let (slot, class) = place(name, classes, slots)?;
    let column = class.columns.iter().position(|known| *known == column);
    Ok((slot, column.ok_or_else(|| format!("[{}] has no such column as {{{name}}} asks for", class.name))?))
}

/// The slot of `thing` or `thing2`, a new one where the row has none of this name, and its class.
fn place<'a>(
    name: &'static str,
    classes: &'a [Class],
    slots: &mut Vec<(&'static str, usize)>,
) -> Result<(usize, &'a Class), String> {
    let class_name = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let class = classes.iter().position(|class| class.name == class_name);
    let class = class.ok_or_else(|| format!("no class [{class_name}] above"))?;
    let slot = slots.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
        slots.push((name, class));
        slots.len() - 1
    });
    Ok((slot, &classes[class]))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::data::shuffle::{Purpose, generator};

    const WORDS: &str = "# Words.\n[thing: en ps gender]\nbook | کتاب | m\ndoor | دروازه | f\n\n[adjective: en m f]\nnew | نوی | نوې\n";

    fn parse(rules: &str) -> Result<Grammar, Error> {
        Grammar::parse(format!("{WORDS}{rules}").leak())
    }

    #[test]
    fn both_sides_of_a_rule_are_of_one_draw_and_agree() {
        let grammar = parse(
            "[text: en ps]\nthe {adjective.en} {thing.en} | {adjective:thing.gender} {thing.ps}\n\
             {thing.en} and {thing2.en} | {thing.ps} او {thing2.ps}\n",
        )
        .expect("a grammar");
        let drawn = |seed| grammar.draw(&mut generator(seed, 0, Purpose::Phrases, 0)).expect("drawn");
        let all: BTreeSet<_> = (0..100).map(drawn).map(|phrase| (phrase.text, phrase.translation)).collect();
        let expected = [
            ("book and door", "کتاب او دروازه"),
            ("door and book", "دروازه او کتاب"),
            ("the new book", "نوی کتاب"),
            ("the new door", "نوې دروازه"),
        ];
        let expected = expected.map(|(text, translation)| (text.to_owned(), translation.to_owned()));
        assert_eq!(all, BTreeSet::from(expected));
    }

    #[test]
    fn what_is_no_grammar_is_named_by_its_line() {
        for (rules, words) in [
            ("[text: en ps]\n{thing.en}\n", "line 9: 1 cells for 2 columns"),
            ("[text: en ps]\n{verb.en} | x\n", "line 9: no class [verb] above"),
            ("[text: en ps]\n{text.en} | x\n", "line 9: no class [text] above"),
            ("[text: en ps]\n{thing.one} | x\n", "line 9: [thing] has no such column"),
            ("[text: en ps]\n{thing} | x\n", "line 9: {thing} names no column"),
            ("[text: en ps]\n{thing.en | x\n", "line 9: a slot without its end"),
            ("[text: en ps]\n{adjective.en} {adjective2.en} | x\n", "line 9: [adjective] has fewer rows"),
            ("[text]\n", "line 8: no columns"),
            ("[text: en]\nx\n", "no two columns"),
        ] {
            let message = parse(rules).err().expect("refused").to_string();
            assert!(message.contains(words), "{message}");
        }
        assert!(Grammar::parse("x | y").err().expect("refused").to_string().contains("before its class"));
        let grammar = parse("[text: en ps]\n{thing:adjective.en} {adjective.en} | x\n").expect("a grammar");
        let message =
            grammar.draw(&mut generator(0, 0, Purpose::Phrases, 0)).expect_err("no column").to_string();
        assert!(message.contains("[thing] has no column `new`"), "{message}");
    }
}

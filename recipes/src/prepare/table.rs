//! Tables of text, row after row.

use std::{fs::File, path::Path, sync::Arc};

use csv::{ReaderBuilder, StringRecord};

use crate::data::manifest::{Error, Reason, Rejected};

/// How a table is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Commas and quotes (RFC 4180).
    Csv,
    /// Tabs; a quote is a quote (Common Voice).
    Tsv,
    /// Vertical bars; a quote is a quote (LJSpeech).
    Bars,
}

/// A table that is read a row at a time.
pub(super) struct Table {
    file: Arc<Path>,
    reader: csv::Reader<File>,
    record: StringRecord,
    header: Option<StringRecord>,
    is_over: bool,
}

impl Table {
    /// Opens a table whose first row names the columns.
    pub(super) fn open(path: &Path, style: Style) -> Result<Self, Error> {
        let mut table = Self::open_without_header(path, style)?;
        match table.read() {
            Ok(true) => table.header = Some(table.record.clone()),
            Ok(false) => return Err(Error::file(path, "is empty; its first line should name the columns")),
            Err(error) => return Err(Error::file(path, error.to_string())),
        }
        Ok(table)
    }

    /// Opens a table without names of columns.
    pub(super) fn open_without_header(path: &Path, style: Style) -> Result<Self, Error> {
        let file = File::open(path).map_err(|error| Error::io(path, &error))?;
        let (delimiter, has_quotes) = match style {
            Style::Csv => (b',', true),
            Style::Tsv => (b'\t', false),
            Style::Bars => (b'|', false),
        };
        let reader = ReaderBuilder::new()
            .delimiter(delimiter)
            .quoting(has_quotes)
            .has_headers(false)
            .flexible(true)
            .from_reader(file);
        Ok(Self { file: path.into(), reader, record: StringRecord::new(), header: None, is_over: false })
    }

    pub(super) fn file(&self) -> &Arc<Path> {
        &self.file
    }

    /// The names of the columns.
    pub(super) fn columns(&self) -> impl Iterator<Item = &str> {
        self.header.iter().flatten().map(str::trim)
    }

    /// Where the first of some columns is that the table has.
    pub(super) fn column(&self, names: &[&str]) -> Option<usize> {
        names.iter().find_map(|name| self.columns().position(|column| column == *name))
    }

    /// As [`Table::column`], for one that must be there.
    pub(super) fn required(&self, names: &[&str]) -> Result<usize, Error> {
        self.column(names).ok_or_else(|| {
            let found: Vec<_> = self.columns().collect();
            let message = format!("no column `{}`; it has: {}", names.join("` or `"), found.join(", "));
            Error::file(&self.file, message)
        })
    }

    /// The next row and its line, or why it is none.
    pub(super) fn next(&mut self) -> Option<Result<(u64, &StringRecord), Rejected>> {
        if self.is_over {
            return None;
        }
        let result = self.read();
        let line = self.record.position().map(csv::Position::line);
        let reason = match result {
            Ok(false) => {
                self.is_over = true;
                return None;
            }
            Ok(true) => match &self.header {
                Some(header) if header.len() != self.record.len() => {
                    Reason::Columns { found: self.record.len(), expected: header.len() }
                }
                _ => return Some(Ok((line.unwrap_or(0), &self.record))),
            },
            Err(error) => {
                self.is_over = error.is_io_error();
                match error.kind() {
                    csv::ErrorKind::Utf8 { err, .. } => {
                        Reason::BadRow(format!("column {}: no UTF-8", err.field() + 1))
                    }
                    _ => Reason::BadRow(error.to_string()),
                }
            }
        };
        Some(Err(Rejected { file: self.file.clone(), line, reason }))
    }

    fn read(&mut self) -> csv::Result<bool> {
        let position = self.reader.position().clone();
        let result = self.reader.read_record(&mut self.record);
        if result.is_err() {
            self.record.set_position(Some(position));
        }
        result
    }
}

//! Tables of text: for a terminal, a log and a run card.

use std::fmt;

/// A column's heading, and the side that its cells are set to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Column {
    /// For words.
    Left(&'static str),
    /// For numbers.
    Right(&'static str),
}

/// Rows under headings.
pub(crate) struct TextTable {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl TextTable {
    /// A table without rows.
    pub(crate) fn new(columns: &[Column]) -> Self {
        let heading = |column: &Column| match column {
            Column::Left(heading) | Column::Right(heading) => (*heading).to_owned(),
        };
        Self { columns: columns.to_vec(), rows: vec![columns.iter().map(heading).collect()] }
    }

    /// Adds a row; it has a cell for each column.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl fmt::Display for TextTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |index: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(index));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        for row in &self.rows {
            let cells: Vec<String> = row
                .iter()
                .zip(self.columns.iter().zip(&widths))
                .map(|(cell, (column, &width))| match column {
                    Column::Left(_) => format!("{cell:<width$}"),
                    Column::Right(_) => format!("{cell:>width$}"),
                })
                .collect();
            writeln!(f, "{}", cells.join("  ").trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_left_and_numbers_right() {
        let mut table = TextTable::new(&[Column::Left("way"), Column::Right("share"), Column::Left("note")]);
        table.row(["random".to_owned(), "48.1 %".to_owned(), "ښ".to_owned()]);
        table.row(["1-D".to_owned(), "4 %".to_owned(), String::new()]);
        assert_eq!(table.to_string(), "way      share  note\nrandom  48.1 %  ښ\n1-D        4 %\n");
    }
}

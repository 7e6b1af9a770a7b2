//! What becomes of the rows of a matrix when its tokens are others.

/// For each new row, the rows of before whose mean it is. Where none is named it is the mean of typical ones.
#[derive(Debug, Clone, Default)]
pub(crate) struct RowMeans {
    /// Rows of before, for each new one.
    pub rows: Vec<Vec<usize>>,
    /// Those that stand for what nothing is known of: the mean of all tokens is as likely as any (Hewitt 2021, "Initializing new word
    /// embeddings for pretrained language models").
    pub typical: Vec<usize>,
}

impl RowMeans {
    /// The first row of before that a matrix of `n_before` rows lacks.
    pub fn missing(&self, n_before: usize) -> Option<usize> {
        let is_open = self.rows.iter().any(Vec::is_empty);
        let typical = self.typical.iter().filter(|_| is_open);
        self.rows.iter().flatten().chain(typical).copied().find(|row| *row >= n_before)
    }

    /// The new rows of a matrix of `n_before` rows; `None` where it lacks some of those that are named. One row alone is copied, to
    /// the bit.
    pub fn of(&self, values: &[f32], n_before: usize) -> Option<Vec<f32>> {
        let width = values.len().checked_div(n_before)?;
        let row = |at: usize| values.get(at * width..(at + 1) * width);
        let mean = |of: &[usize]| -> Option<Vec<f32>> {
            let share = 1.0 / of.len() as f32;
            let mut mean = vec![0f32; width];
            for at in of {
                mean.iter_mut().zip(row(*at)?).for_each(|(sum, value)| *sum += share * value);
            }
            (!of.is_empty()).then_some(mean)
        };
        // Of thousands of rows, and for many: once.
        let is_any_open = self.rows.iter().any(Vec::is_empty);
        let typical = if is_any_open { mean(&self.typical)? } else { Vec::new() };
        let mut new = Vec::with_capacity(self.rows.len() * width);
        for of in &self.rows {
            match of[..] {
                [] => new.extend_from_slice(&typical),
                [one] => new.extend_from_slice(row(one)?),
                _ => new.extend(mean(of)?),
            }
        }
        Some(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_copied_averaged_or_typical() {
        let values = [1.0, 10.0, 3.0, 30.0, 8.0, 80.0];
        let means = |rows: &[&[usize]], typical: &[usize]| {
            let rows = rows.iter().map(|row| row.to_vec()).collect();
            RowMeans { rows, typical: typical.to_vec() }.of(&values, 3)
        };
        assert_eq!(means(&[&[2], &[0, 1], &[]], &[0, 1, 2]), Some(vec![8.0, 80.0, 2.0, 20.0, 4.0, 40.0]));
        assert_eq!(means(&[], &[]), Some(Vec::new()));
        assert_eq!(means(&[&[3]], &[]), None, "there is no such row");
        let missing = RowMeans { rows: vec![vec![1], vec![2, 5]], typical: vec![9] };
        assert_eq!((missing.missing(6), missing.missing(3)), (None, Some(5)));
        assert_eq!(means(&[&[]], &[]), None, "nothing is typical");
        assert_eq!(RowMeans::default().of(&[], 0), None);
    }
}

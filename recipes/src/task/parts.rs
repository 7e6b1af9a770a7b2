//! Rows of a batch in parts that are computed side by side.

/// Rows by length, in at most `n` parts of about equal total length.
pub(super) fn divide<T>(mut rows: Vec<T>, n: usize, length: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    rows.sort_by_key(&length);
    let total: usize = rows.iter().map(&length).sum();
    let mut parts: Vec<Vec<T>> = Vec::new();
    let (mut n_before, mut place) = (0, 0);
    for row in rows {
        // The part that its middle lies in.
        let n_own = length(&row);
        let part = (2 * n_before + n_own) * n.max(1) / (2 * total).max(1);
        n_before += n_own;
        match parts.last_mut().filter(|_| part == place) {
            Some(rows) => rows.push(row),
            None => parts.push(vec![row]),
        }
        place = part;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_of_neighbours_in_length_and_about_equal() {
        let lengths = |rows: &[usize], n| divide(rows.to_vec(), n, |length| *length);
        assert_eq!(lengths(&[8, 8, 8, 8, 8], 2), [vec![8, 8], vec![8, 8, 8]]);
        assert_eq!(lengths(&[5, 1, 4, 2, 3, 9], 2), [vec![1, 2, 3, 4], vec![5, 9]]);
        assert_eq!(lengths(&[1, 1, 100], 3), [vec![1, 1], vec![100]]);
        assert_eq!(lengths(&[7, 3], 1), [vec![3, 7]]);
        assert_eq!(lengths(&[7, 3], 0), [vec![3, 7]]);
        assert_eq!(lengths(&[0, 0], 2), [vec![0, 0]]);
        assert!(lengths(&[], 2).is_empty());
    }
}

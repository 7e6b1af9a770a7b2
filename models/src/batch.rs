//! What a batch costs: one rule for the training sampler and for serving.

/// What one item of this `length` (seconds, frames or tokens) counts for: `length`, and where a term of the work grows
/// with the square of the length (attention) `length + length^2 / quadratic`, so that an item of length `quadratic`
/// counts double. lhotse, `TimeConstraint.quadratic_duration`.
pub fn effective_length(length: f64, quadratic: Option<f64>) -> f64 {
    quadratic.map_or(length, |quadratic| length + length * length / quadratic)
}

/// What a batch of `count` items costs when all are padded to the `longest`: `count` times its effective length.
pub fn padded_cost(count: usize, longest: f64, quadratic: Option<f64>) -> f64 {
    count as f64 * effective_length(longest, quadratic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_as_long_as_the_quadratic_term_counts_double() {
        for (length, expected) in [(5.0, 5.8333), (15.0, 22.5), (30.0, 60.0)] {
            assert!((effective_length(length, Some(30.0)) - expected).abs() < 1e-4, "{length}");
            assert_eq!(effective_length(length, None), length);
        }
        assert_eq!((padded_cost(3, 30.0, Some(30.0)), padded_cost(3, 30.0, None)), (180.0, 90.0));
        assert_eq!(padded_cost(0, 30.0, None), 0.0);
    }
}

//! Counts of values between round bounds, and their bars in a terminal; [`crate::plot::Histogram`] draws them.

/// Counts of values between bounds that are equally far apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// Lower bound of the first bin.
    pub start: f64,
    /// Width of a bin, a round number.
    pub step: f64,
    /// Values in each bin: from its lower bound up to, and without, its upper one.
    pub counts: Vec<u64>,
}

impl Histogram {
    /// Counts finite values in about `n_bins` bins, at most one more; `None` when there are none, or when their range is no number.
    pub fn of(values: impl IntoIterator<Item = f64>, n_bins: usize) -> Option<Self> {
        let finite: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        let low = finite.iter().copied().reduce(f64::min)?;
        let high = finite.iter().copied().reduce(f64::max)?;
        if !(high - low).is_finite() {
            return None;
        }
        let step = round_step((high - low) / n_bins.max(1) as f64);
        let start = (low / step).floor() * step;
        let bin = |value: f64| ((value - start) / step).floor().max(0.0) as usize;
        let mut counts = vec![0; bin(high) + 1];
        let last = counts.len() - 1;
        finite.iter().for_each(|&value| counts[bin(value).min(last)] += 1);
        Some(Self { start, step, counts })
    }

    /// Lower bound of a bin.
    pub fn bound(&self, bin: usize) -> f64 {
        self.start + self.step * bin as f64
    }

    fn label(&self, bin: usize) -> String {
        let decimals = (-self.step.log10().floor()).clamp(0.0, 6.0) as usize;
        format!("{:.decimals$}", self.bound(bin))
    }

    /// A line for each bin: its lower bound, a bar of at most `width` characters, its count.
    pub fn bars(&self, width: usize) -> Vec<String> {
        const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
        let most = self.counts.iter().copied().max().unwrap_or(0).max(1);
        let labels: Vec<_> = (0..self.counts.len()).map(|bin| self.label(bin)).collect();
        let widest = labels.iter().map(String::len).max().unwrap_or(0);
        let line = |(label, count): (&String, &u64)| {
            let exact = (*count as f64 / most as f64 * width as f64 * 8.0).round() as usize;
            // What is there is seen, however little.
            let eighths = exact.max(usize::from(*count > 0));
            let bar = "█".repeat(eighths / 8) + EIGHTHS[eighths % 8];
            format!("{label:>widest$} {bar} {count}").trim_end().to_owned()
        };
        labels.iter().zip(&self.counts).map(line).collect()
    }
}

/// The next larger of 1, 2 and 5 times a power of ten.
fn round_step(step: f64) -> f64 {
    if step <= 0.0 || !step.is_finite() {
        return 1.0;
    }
    let power = 10_f64.powf(step.log10().floor());
    // A rounded logarithm may miss by a digit.
    [1.0, 2.0, 5.0, 10.0, 20.0]
        .into_iter()
        .map(|digit| digit * power)
        .find(|round| *round >= step)
        .unwrap_or(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_round_and_every_value_is_counted() {
        let values = (0..1000).map(|index| 0.3 + f64::from(index) * 0.0173);
        let histogram = Histogram::of(values, 20).expect("values");
        assert_eq!((histogram.start, histogram.step), (0.0, 1.0));
        assert_eq!((histogram.counts.len(), histogram.counts.iter().sum::<u64>()), (18, 1000));
        // 0.3 to below 1 in steps of 0.0173.
        assert_eq!(histogram.counts[0], 41);
    }

    #[test]
    fn one_value_and_none() {
        assert_eq!(Histogram::of([], 20), None);
        assert_eq!(Histogram::of([f64::NAN], 20), None);
        assert_eq!(Histogram::of([f64::MIN, f64::MAX], 20), None);
        let histogram = Histogram::of([2.5, 2.5], 20).expect("values");
        assert_eq!(histogram, Histogram { start: 2.0, step: 1.0, counts: vec![2] });
    }

    #[test]
    fn bars_show_what_is_there() {
        let histogram = Histogram { start: 0.0, step: 0.5, counts: vec![1000, 1, 0, 500] };
        assert_eq!(histogram.bars(4), ["0.0 ████ 1000", "0.5 ▏ 1", "1.0  0", "1.5 ██ 500"]);
    }
}

//! What a predictor leaves, in Rice codes whose parameter changes from partition to partition (RFC 9639, 9.2.7).

use super::bits::BitWriter;

/// Parameters of four bits; 15 would mean samples as they are.
const N_PARAMETERS: usize = 15;
/// Most partitions of a block are 2 to the power of this: 18 samples each in a full one.
const MAX_PARTITION_ORDER: u32 = 6;

/// A predictor's residual and the way to code it in the fewest bits.
pub(super) struct Residual {
    order: usize,
    /// Zigzag: 0, -1, 1, -2, 2 are 0, 1, 2, 3, 4.
    folded: Vec<u32>,
    block_samples: usize,
    /// One for each of a power of two of partitions.
    parameters: Vec<u32>,
    n_bits: u64,
}

impl Residual {
    /// `differences` are those of `order`, as many as a block of `block_samples` has: `order` fewer.
    pub(super) fn new(order: usize, block_samples: usize, bits_per_sample: u32, differences: &[i32]) -> Self {
        let folded: Vec<u32> =
            differences.iter().map(|value| ((value << 1) ^ (value >> 31)) as u32).collect();
        let finest = finest_partition_order(order, block_samples);
        let mut partitions: Vec<Partition> =
            partition(&folded, order, block_samples >> finest).map(Partition::new).collect();
        let mut best = cheapest(&partitions);
        while partitions.len() > 1 {
            partitions = partitions.chunks_exact(2).map(|pair| pair[0].joined(&pair[1])).collect();
            let coarser = cheapest(&partitions);
            if coarser.0 < best.0 {
                best = coarser;
            }
        }
        let (n_coded_bits, parameters) = best;
        let n_bits = n_coded_bits + order as u64 * u64::from(bits_per_sample);
        Residual { order, folded, block_samples, parameters, n_bits }
    }

    /// The predictor's order: samples that are written as they are, before the residual.
    pub(super) fn order(&self) -> usize {
        self.order
    }

    /// Bits that the block takes, the samples before the residual among them.
    pub(super) fn n_bits(&self) -> u64 {
        self.n_bits
    }

    pub(super) fn write(&self, bits: &mut BitWriter) {
        // Two bits: parameters have four.
        bits.write(0, 2);
        bits.write(self.parameters.len().ilog2(), 4);
        let partitions = partition(&self.folded, self.order, self.block_samples / self.parameters.len());
        for (values, parameter) in partitions.zip(&self.parameters) {
            bits.write(*parameter, 4);
            for value in values {
                bits.write_unary(value >> parameter);
                bits.write(value & ((1_u32 << parameter) - 1), *parameter);
            }
        }
    }
}

/// The values partition by partition; the first lacks the `order` samples that have no residual.
fn partition(folded: &[u32], order: usize, partition_samples: usize) -> impl Iterator<Item = &[u32]> {
    let (first, others) = folded.split_at(partition_samples.saturating_sub(order).min(folded.len()));
    std::iter::once(first).chain(others.chunks(partition_samples.max(1)))
}

/// Partitions are alike, so their number divides the block's samples, and the first must not be empty.
fn finest_partition_order(order: usize, block_samples: usize) -> u32 {
    let mut finest = MAX_PARTITION_ORDER.min(block_samples.trailing_zeros());
    while finest > 0 && block_samples >> finest <= order {
        finest -= 1;
    }
    finest
}

/// The bits of all partitions, their parameters among them, and the parameters.
fn cheapest(partitions: &[Partition]) -> (u64, Vec<u32>) {
    let choices = partitions.iter().map(Partition::cheapest);
    let (n_bits, parameters): (Vec<u64>, Vec<u32>) = choices.unzip();
    // Two bits for the kind of codes, four for the number of partitions.
    (6 + n_bits.iter().sum::<u64>(), parameters)
}

/// What coding a partition would take, for every parameter.
struct Partition {
    n_values: u64,
    /// The sum of the values' unary parts.
    quotients: [u64; N_PARAMETERS],
}

impl Partition {
    fn new(values: &[u32]) -> Self {
        let mut quotients = [0_u64; N_PARAMETERS];
        for (parameter, quotient) in quotients.iter_mut().enumerate() {
            *quotient = values.iter().map(|value| u64::from(value >> parameter)).sum();
        }
        Partition { n_values: values.len() as u64, quotients }
    }

    fn joined(&self, next: &Partition) -> Self {
        let mut quotients = self.quotients;
        quotients.iter_mut().zip(next.quotients).for_each(|(sum, quotient)| *sum += quotient);
        Partition { n_values: self.n_values + next.n_values, quotients }
    }

    /// Bits, with the four of the parameter, and the parameter.
    fn cheapest(&self) -> (u64, u32) {
        let n_bits = |(parameter, quotient): (u32, &u64)| {
            (4 + *quotient + self.n_values * u64::from(1 + parameter), parameter)
        };
        (0..).zip(&self.quotients).map(n_bits).min().unwrap_or((4, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(residual: &Residual) -> u64 {
        let mut bits = BitWriter::default();
        residual.write(&mut bits);
        8 * bits.into_bytes().len() as u64
    }

    #[test]
    fn the_bits_are_those_that_were_counted() {
        for (order, n) in [(0, 1_152), (2, 1_152), (4, 1_000), (1, 7), (3, 4), (0, 1)] {
            let differences: Vec<i32> = (order..n).map(|t| ((t * t) % 61) as i32 - 30).collect();
            let residual = Residual::new(order, n, 16, &differences);
            let counted = residual.n_bits() - 16 * order as u64;
            assert_eq!(written(&residual), counted.next_multiple_of(8), "{order} {n}");
        }
    }

    #[test]
    fn a_change_of_loudness_splits_the_block() {
        let alike: Vec<i32> = (0..1_152).map(|t| t % 5 - 2).collect();
        let louder: Vec<i32> =
            (0..1_152).map(|t| if t < 576 { t % 5 - 2 } else { 900 * (t % 5 - 2) }).collect();
        assert_eq!(Residual::new(0, 1_152, 16, &alike).parameters.len(), 1);
        assert_eq!(Residual::new(0, 1_152, 16, &louder).parameters.len(), 2);
    }

    #[test]
    fn partitions_hold_more_than_the_predictor_needs() {
        assert_eq!(finest_partition_order(0, 1_152), 6);
        assert_eq!(finest_partition_order(4, 8), 0);
        assert_eq!(finest_partition_order(3, 8), 1);
        assert_eq!(finest_partition_order(0, 1), 0);
        assert_eq!(finest_partition_order(4, 7), 0);
    }
}

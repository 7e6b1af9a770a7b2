//! Bits to bytes, the highest bit first.

/// Collects bits.
#[derive(Default)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    /// Its lowest `n_waiting` bits, fewer than 8, are still to be written.
    waiting: u64,
    n_waiting: u32,
}

impl BitWriter {
    /// Appends the lowest `n_bits` (at most 32) of `value`, whose other bits are 0.
    pub(super) fn write(&mut self, value: u32, n_bits: u32) {
        self.waiting = (self.waiting << n_bits) | u64::from(value);
        self.n_waiting += n_bits;
        while self.n_waiting >= 8 {
            self.n_waiting -= 8;
            self.bytes.push((self.waiting >> self.n_waiting) as u8);
        }
    }

    /// Appends `number` zeros and a one.
    pub(super) fn write_unary(&mut self, mut number: u32) {
        while number >= 32 {
            self.write(0, 32);
            number -= 32;
        }
        self.write(1, number + 1);
    }

    /// What was written, with zeros up to the next whole byte.
    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        if self.n_waiting > 0 {
            self.write(0, 8 - self.n_waiting);
        }
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_follow_each_other() {
        let mut bits = BitWriter::default();
        bits.write(0b101, 3);
        bits.write(0, 0);
        bits.write(0xdead_beef, 32);
        bits.write_unary(2);
        bits.write_unary(40);
        // 3 + 32 + 3 + 41 bits, and one to fill the last byte.
        let expected = (0b101_u128 << 76) | (0xdead_beef << 44) | (0b001 << 41) | 1;
        assert_eq!(bits.into_bytes(), (expected << 1).to_be_bytes()[6..]);
    }
}

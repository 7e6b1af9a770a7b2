//! Noise that follows from what it is for, and from nothing else: which requests share a batch, and in which order they are computed,
//! changes no number.

/// Weyl's sequence by the golden ratio, as SplitMix64 has it (Steele et al., OOPSLA 2014).
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A number without a pattern from the one before: SplitMix64's mixer.
const fn mixed(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A place that numbers are drawn for: a seed and what was said of it since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noise(u64);

impl Noise {
    /// That of a seed.
    pub const fn new(seed: u64) -> Self {
        Self(mixed(seed.wrapping_add(STEP)))
    }

    /// That of a thing below it, such as a clause or a speech token, by its number.
    #[must_use]
    pub const fn at(self, index: u64) -> Self {
        Self(mixed(self.0 ^ mixed(index.wrapping_add(STEP)).rotate_left(17)))
    }

    /// Number `index` of this place, evenly between 0 and 1, never 0.
    pub fn uniform(self, index: u64) -> f32 {
        let bits = mixed(self.0.wrapping_add(index.wrapping_add(1).wrapping_mul(STEP)));
        (((bits >> 40) as f64 + 0.5) / (1u64 << 24) as f64) as f32
    }

    /// Fills `values` with normal numbers of this standard deviation, two at a time (Box and Muller 1958).
    pub fn fill_normal(self, std: f32, values: &mut [f32]) {
        for (pair, values) in (0u64..).zip(values.chunks_mut(2)) {
            let radius = std * (-2.0 * self.uniform(2 * pair).ln()).sqrt();
            let (sine, cosine) = (std::f32::consts::TAU * self.uniform(2 * pair + 1)).sin_cos();
            for (value, part) in values.iter_mut().zip([cosine, sine]) {
                *value = radius * part;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_normal_and_places_have_nothing_in_common() {
        let mut values = vec![0f32; 100_001];
        Noise::new(1).at(7).fill_normal(1.0, &mut values);
        let moment = |power: i32| values.iter().map(|v| f64::from(*v).powi(power)).sum::<f64>() / 100_001.0;
        assert!(moment(1).abs() < 0.01 && (moment(2) - 1.0).abs() < 0.02, "{} {}", moment(1), moment(2));
        assert!(moment(3).abs() < 0.05 && (moment(4) - 3.0).abs() < 0.1, "{} {}", moment(3), moment(4));
        for other in [Noise::new(2).at(7), Noise::new(1).at(8), Noise::new(1), Noise::new(1).at(7).at(0)] {
            let mut others = vec![0f32; 100_001];
            other.fill_normal(1.0, &mut others);
            let product: f64 = values.iter().zip(&others).map(|(a, b)| f64::from(a * b)).sum();
            assert!(product.abs() / 100_001.0 < 0.02);
        }
    }

    #[test]
    fn a_place_always_gives_the_same_numbers() {
        let draw = |n: usize| {
            let mut values = vec![0f32; n];
            Noise::new(3).at(1).fill_normal(0.5, &mut values);
            values
        };
        assert_eq!(draw(10)[..4], draw(4));
        let mean = (0..10_000).map(|i| f64::from(Noise::new(5).uniform(i))).sum::<f64>() / 10_000.0;
        assert!((mean - 0.5).abs() < 0.01, "{mean}");
    }
}

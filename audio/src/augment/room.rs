//! Impulse responses of rooms that do not exist.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

use super::ImpulseResponse;
use super::level::{amplitude_of_db, check_rate, check_value};
use crate::{Error, Waveform};

/// Reverberation times that are accepted, seconds.
pub(super) const RT60S_SECS: std::ops::RangeInclusive<f64> = 0.05..=5.0;
/// Direct-to-reverberant ratios that are accepted, decibels.
pub(super) const DRRS_DB: std::ops::RangeInclusive<f64> = -30.0..=60.0;

/// Metres per second at 20 degrees Celsius.
const SPEED_OF_SOUND: f64 = 343.0;
/// Natural logarithm of the factor that 60 dB of energy are.
const LN_60_DB: f64 = 13.815_510_557_964_274;
/// Sides of a room that are accepted, metres.
const SIDES_M: std::ops::RangeInclusive<f64> = 1.0..=100.0;
/// Shortest distance between source and microphone, metres.
const MIN_DISTANCE_M: f64 = 0.1;
/// Where single echoes end and the diffuse tail begins, seconds after the direct sound: by then hundreds of echoes a
/// second have overlapped in any furnished room.
const MIXING_SECS: f64 = 0.05;
/// Samples on each side of an echo: the windowed sinc that places it between samples has twice as many, plus one.
const HALF_ECHO_SAMPLES: usize = 40;
/// Distance that random sources and microphones keep from the walls, metres.
const WALL_DISTANCE_M: f64 = 0.5;

/// A direct sound followed by Gaussian noise that falls by 60 dB in `rt60_secs`, `drr_db` decibels weaker in total than
/// the direct sound (Polack's statistical model of late reverberation). As long as the fall.
///
/// # Errors
/// [`Error::BadOption`] for a time outside 0.05 to 5 s or a ratio outside -30 to 60 dB, [`Error::BadSampleRate`] for a rate
/// of 0.
pub fn decaying_noise(
    rt60_secs: f64,
    drr_db: f64,
    sample_rate: u32,
    rng: &mut ChaCha8Rng,
) -> Result<ImpulseResponse, Error> {
    check_value("rt60_secs", rt60_secs, RT60S_SECS)?;
    check_value("drr_db", drr_db, DRRS_DB)?;
    let mut waveform = Waveform { samples: Vec::new(), sample_rate };
    check_rate(&waveform, sample_rate)?;
    let n_samples = (rt60_secs * f64::from(sample_rate)).ceil() as usize;
    let tail: Vec<f64> = (1..n_samples.max(2))
        .map(|t| {
            let decay = (-0.5 * LN_60_DB * t as f64 / (rt60_secs * f64::from(sample_rate))).exp();
            decay * rng.sample::<f64, _>(StandardNormal)
        })
        .collect();
    let energy: f64 = tail.iter().map(|sample| sample * sample).sum();
    let scale = if energy > 0.0 { amplitude_of_db(-drr_db) / energy.sqrt() } else { 0.0 };
    waveform.samples.push(1.0);
    waveform.samples.extend(tail.iter().map(|sample| (sample * scale) as f32));
    Ok(ImpulseResponse::synthetic(waveform, 0))
}

/// A rectangular room with walls of one material. Positions are metres from one corner.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shoebox {
    /// Length, width and height, metres.
    pub sides_m: [f64; 3],
    /// Where somebody speaks.
    pub source_m: [f64; 3],
    /// Where the microphone stands.
    pub microphone_m: [f64; 3],
    /// Time in which sound falls by 60 dB, seconds.
    pub rt60_secs: f64,
}

impl Shoebox {
    /// A room of 3 to 10 by 3 to 8 by 2.4 to 4 metres with speaker and microphone anywhere in it, half a metre from the
    /// walls.
    pub fn random(rt60_secs: f64, rng: &mut ChaCha8Rng) -> Self {
        let sides_m =
            [rng.random_range(3.0..=10.0), rng.random_range(3.0..=8.0), rng.random_range(2.4..=4.0)];
        let mut place = || sides_m.map(|side| rng.random_range(WALL_DISTANCE_M..=side - WALL_DISTANCE_M));
        let (source_m, microphone_m) = (place(), place());
        Shoebox { sides_m, source_m, microphone_m, rt60_secs }
    }

    /// The room's impulse response, the direct sound at amplitude 1.
    ///
    /// The first 50 ms after it are single echoes by the image-source method (Allen and Berkley 1979) with the reflection
    /// coefficient that Eyring's formula gives for the reverberation time; the rest is the noise that the sum of all later
    /// echoes tends to (Lehmann and Johansson 2010), drawn from `rng`. Sound takes `distance / 343 m/s` plus 40 samples to
    /// arrive; the response lasts as long as the reverberation time after that.
    ///
    /// # Errors
    /// [`Error::BadOption`] for sides outside 1 to 100 m, positions outside the room and times outside 0.05 to 5 s;
    /// [`Error::BadSampleRate`] for a rate of 0.
    pub fn impulse_response(&self, sample_rate: u32, rng: &mut ChaCha8Rng) -> Result<ImpulseResponse, Error> {
        self.check()?;
        check_rate(&Waveform { samples: Vec::new(), sample_rate }, sample_rate)?;
        let rate = f64::from(sample_rate);
        let distance_m = self.distance_m();
        let direct_secs = distance_m / SPEED_OF_SOUND;
        let n_samples = ((direct_secs + self.rt60_secs) * rate).ceil() as usize + 2 * HALF_ECHO_SAMPLES + 1;
        let mut response = vec![0.0; n_samples];
        self.add_echoes(&mut response, rate, direct_secs + MIXING_SECS.min(self.rt60_secs));
        self.add_tail(&mut response, rate, direct_secs + MIXING_SECS, rng);
        let samples = response.iter().map(|sample| *sample as f32).collect();
        let direct_sample = (direct_secs * rate).round() as usize + HALF_ECHO_SAMPLES;
        Ok(ImpulseResponse::synthetic(Waveform { samples, sample_rate }, direct_sample))
    }

    /// Adds every echo that arrives before `until_secs`.
    fn add_echoes(&self, response: &mut [f64], rate: f64, until_secs: f64) {
        let reflection = self.reflection();
        let reach_m = until_secs * SPEED_OF_SOUND;
        // Images along each axis: offset from the microphone, and walls passed.
        let images: [Vec<(f64, i32)>; 3] = std::array::from_fn(|axis| {
            let (side, source, microphone) =
                (self.sides_m[axis], self.source_m[axis], self.microphone_m[axis]);
            let n_rooms = (reach_m / (2.0 * side)).ceil() as i32 + 1;
            (-n_rooms..=n_rooms)
                .flat_map(|room| {
                    let period = 2.0 * f64::from(room) * side;
                    [
                        (period + source - microphone, (2 * room).abs()),
                        (period - source - microphone, (2 * room - 1).abs()),
                    ]
                })
                .filter(|(offset, _)| offset.abs() <= reach_m)
                .collect()
        });
        let distance_m = self.distance_m();
        for (x, walls_x) in &images[0] {
            for (y, walls_y) in &images[1] {
                let xy = x * x + y * y;
                if xy > reach_m * reach_m {
                    continue;
                }
                for (z, walls_z) in &images[2] {
                    let image_m = (xy + z * z).sqrt().max(MIN_DISTANCE_M);
                    if image_m <= reach_m {
                        let amplitude = reflection.powi(walls_x + walls_y + walls_z) * distance_m / image_m;
                        add_echo(response, image_m / SPEED_OF_SOUND * rate, amplitude);
                    }
                }
            }
        }
    }

    /// Adds the noise of the echoes that arrive after `from_secs`.
    fn add_tail(&self, response: &mut [f64], rate: f64, from_secs: f64, rng: &mut ChaCha8Rng) {
        // 4 pi c^3 t^2 / V echoes a second, each of power (d / (c t))^2 times the decay: t cancels.
        let power = 4.0 * std::f64::consts::PI * SPEED_OF_SOUND * self.distance_m().powi(2)
            / (self.volume_m3() * rate);
        let first = (from_secs * rate).ceil() as usize + HALF_ECHO_SAMPLES;
        for (at, value) in response.iter_mut().enumerate().skip(first) {
            let secs = (at - HALF_ECHO_SAMPLES) as f64 / rate;
            let amplitude = (power * (-LN_60_DB * secs / self.rt60_secs).exp()).sqrt();
            *value += amplitude * rng.sample::<f64, _>(StandardNormal);
        }
    }

    /// Amplitude that a wall leaves (Eyring): `exp(-24 ln 10 V / (c S RT60))` of the energy.
    fn reflection(&self) -> f64 {
        let [length, width, height] = self.sides_m;
        let surface_m2 = 2.0 * (length * width + length * height + width * height);
        let energy_exponent =
            4.0 * LN_60_DB * self.volume_m3() / (SPEED_OF_SOUND * surface_m2 * self.rt60_secs);
        (-0.5 * energy_exponent).exp()
    }

    fn volume_m3(&self) -> f64 {
        self.sides_m.iter().product()
    }

    fn distance_m(&self) -> f64 {
        let squares = self.source_m.iter().zip(&self.microphone_m).map(|(a, b)| (a - b).powi(2));
        squares.sum::<f64>().sqrt().max(MIN_DISTANCE_M)
    }

    fn check(&self) -> Result<(), Error> {
        check_value("rt60_secs", self.rt60_secs, RT60S_SECS)?;
        for side in self.sides_m {
            check_value("sides_m", side, SIDES_M)?;
        }
        for (field, place) in [("source_m", self.source_m), ("microphone_m", self.microphone_m)] {
            for (at, side) in place.iter().zip(self.sides_m) {
                check_value(field, *at, 0.0..=side)?;
            }
        }
        Ok(())
    }
}

/// Adds an impulse at a time between samples: a sinc under a Hann window of 81 samples.
fn add_echo(response: &mut [f64], arrival: f64, amplitude: f64) {
    let nearest = arrival.round();
    let fraction = arrival - nearest;
    let first = nearest as usize;
    for (index, value) in response.iter_mut().skip(first).take(2 * HALF_ECHO_SAMPLES + 1).enumerate() {
        let offset = index as f64 - HALF_ECHO_SAMPLES as f64;
        let window = 0.5 + 0.5 * (std::f64::consts::PI * offset / HALF_ECHO_SAMPLES as f64).cos();
        *value += amplitude * window * sinc(offset - fraction);
    }
}

/// `sin(pi x) / (pi x)`.
pub(super) fn sinc(x: f64) -> f64 {
    let angle = std::f64::consts::PI * x;
    if angle.abs() < 1e-9 { 1.0 } else { angle.sin() / angle }
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    /// Seconds to fall by 60 dB, from the fall between -5 and -25 dB of the energy that is still to come (Schroeder 1965).
    fn measured_rt60_secs(response: &Waveform) -> f64 {
        let mut left: Vec<f64> = response.samples.iter().map(|s| f64::from(*s).powi(2)).collect();
        for at in (0..left.len() - 1).rev() {
            left[at] += left[at + 1];
        }
        let below = |db: f64| left.iter().position(|energy| 10.0 * (energy / left[0]).log10() < db).unwrap();
        3.0 * (below(-25.0) - below(-5.0)) as f64 / f64::from(response.sample_rate)
    }

    #[test]
    fn noise_decays_as_asked() {
        for (rt60_secs, drr_db) in [(0.2, 0.0), (0.5, 3.0), (1.2, -6.0)] {
            let mut rng = ChaCha8Rng::seed_from_u64(7);
            let response = decaying_noise(rt60_secs, drr_db, 16_000, &mut rng).unwrap();
            let response = response.response();
            assert_eq!(response.samples[0], 1.0);
            let tail: f64 = response.samples[1..].iter().map(|s| f64::from(*s).powi(2)).sum();
            assert!((-10.0 * tail.log10() - drr_db).abs() < 0.1, "{drr_db}: {tail}");
            let late = Waveform { samples: response.samples[1..].to_vec(), sample_rate: 16_000 };
            let measured_secs = measured_rt60_secs(&late);
            assert!((measured_secs / rt60_secs - 1.0).abs() < 0.1, "{measured_secs} for {rt60_secs}");
        }
    }

    #[test]
    fn rooms_decay_as_asked() {
        for seed in 0..12 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let rt60_secs = 0.25 + 0.06 * seed as f64;
            let room = Shoebox::random(rt60_secs, &mut rng);
            let room = room.impulse_response(16_000, &mut rng).unwrap();
            let (samples, direct) = (&room.response().samples, room.direct_sample());
            assert!(samples[..direct - 1].iter().all(|sample| sample.abs() < samples[direct].abs()));
            // Without the direct sound and what rings around it.
            let late = Waveform { samples: samples[direct + 80..].to_vec(), sample_rate: 16_000 };
            let measured_secs = measured_rt60_secs(&late);
            assert!((measured_secs / rt60_secs - 1.0).abs() < 0.35, "{measured_secs} for {rt60_secs}");
        }
    }

    /// The tail takes over where the echoes end, at their power.
    #[test]
    fn the_tail_goes_on_where_echoes_end() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut steps_db = Vec::new();
        for _ in 0..40 {
            let room = Shoebox::random(0.6, &mut rng);
            let response = room.impulse_response(16_000, &mut rng).unwrap();
            let response = &response.response().samples;
            let end =
                ((room.distance_m() / SPEED_OF_SOUND + MIXING_SECS) * 16_000.0) as usize + HALF_ECHO_SAMPLES;
            // Differences: echoes are all positive, and their sum has a constant part that nobody hears.
            let power = |part: &[f32]| part.windows(2).map(|p| f64::from(p[1] - p[0]).powi(2)).sum::<f64>();
            let (before, after) = (&response[end - 360..end - 40], &response[end + 40..end + 360]);
            steps_db.push(10.0 * (power(after) / power(before)).log10());
        }
        let mean_db = steps_db.iter().sum::<f64>() / steps_db.len() as f64;
        // 25 ms of a fall of 60 dB in 0.6 s are 2.5 dB.
        assert!((mean_db + 2.5).abs() < 1.5, "{mean_db} dB: {steps_db:?}");
    }

    #[test]
    fn impossible_rooms_are_refused() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let room = Shoebox {
            sides_m: [4.0, 3.0, 2.5],
            source_m: [1.0, 1.0, 1.5],
            microphone_m: [3.0, 2.0, 1.2],
            rt60_secs: 0.4,
        };
        assert!(room.impulse_response(16_000, &mut rng).is_ok());
        let mut refused =
            |room: Shoebox| matches!(room.impulse_response(16_000, &mut rng), Err(Error::BadOption { .. }));
        assert!(refused(Shoebox { sides_m: [4.0, 0.5, 2.5], ..room }));
        assert!(refused(Shoebox { source_m: [5.0, 1.0, 1.0], ..room }));
        assert!(refused(Shoebox { microphone_m: [1.0, f64::NAN, 1.0], ..room }));
        assert!(refused(Shoebox { rt60_secs: 0.0, ..room }));
        assert!(matches!(room.impulse_response(0, &mut rng), Err(Error::BadSampleRate { .. })));
        // Source and microphone in one place.
        let together = Shoebox { microphone_m: room.source_m, ..room };
        let response = together.impulse_response(16_000, &mut rng).unwrap();
        assert!(response.response().samples.iter().all(|sample| sample.is_finite()));
    }
}

//! How fast it is spoken: frames are drawn apart or together before they become sound, which leaves their pitch as it is.

use audio::Features;

/// Frames at another speed, as they come: each is a mean of the two between which it lies.
pub(super) struct Tempo {
    speed: f64,
    n_mels: usize,
    /// The last frame, and how many there were.
    last: Vec<f32>,
    n_seen: usize,
    /// Frames given out.
    n_given: usize,
}

impl Tempo {
    pub fn new(speed: f64, n_mels: usize) -> Self {
        Self { speed, n_mels, last: Vec::new(), n_seen: 0, n_given: 0 }
    }

    /// The frames that lie before the last of these, which follow those before. At a speed of 1 they are what comes.
    pub fn push(&mut self, features: &Features) -> Features {
        let mut frames: Vec<f32> = Vec::new();
        for frame in 0..features.n_frames {
            let own: Vec<f32> = (0..self.n_mels).map(|mel| features.row(mel)[frame]).collect();
            let place = self.n_seen as f64;
            // Those between the last one and this.
            loop {
                let at = self.n_given as f64 * self.speed;
                if at > place {
                    break;
                }
                let share = if self.n_seen == 0 { 1.0 } else { (at - (place - 1.0)) as f32 };
                match self.last.is_empty() || share >= 1.0 {
                    true => frames.extend(&own),
                    false => frames.extend(self.last.iter().zip(&own).map(|(a, b)| a + (b - a) * share)),
                }
                self.n_given += 1;
            }
            self.last = own;
            self.n_seen += 1;
        }
        let n_frames = frames.len() / self.n_mels.max(1);
        let value = |mel: usize, frame: usize| frames[frame * self.n_mels + mel];
        let rows = (0..self.n_mels).flat_map(|mel| (0..n_frames).map(move |frame| (mel, frame)));
        let data = rows.map(|(mel, frame)| value(mel, frame)).collect();
        Features { data, n_mels: self.n_mels, n_frames }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(start: usize, n_frames: usize) -> Features {
        let row = (start..start + n_frames).map(|t| t as f32);
        Features { data: row.clone().chain(row.map(|t| -t)).collect(), n_mels: 2, n_frames }
    }

    #[test]
    fn frames_lie_where_the_speed_says_whatever_pieces_they_come_in() {
        for speed in [0.25, 0.5, 0.9, 1.0, 1.5, 4.0] {
            let whole = Tempo::new(speed, 2).push(&ramp(0, 40));
            let expected = (39.0 / speed) as usize + 1;
            assert_eq!(whole.n_frames, expected, "{speed}");
            for (i, value) in whole.row(0).iter().enumerate() {
                assert!((f64::from(*value) - i as f64 * speed).abs() < 1e-4, "{speed}: {i} is {value}");
                assert_eq!(whole.row(1)[i], -value);
            }
            let mut tempo = Tempo::new(speed, 2);
            let mut pieces: Vec<f32> = Vec::new();
            for (start, n) in [(0, 1), (1, 7), (8, 0), (8, 32)] {
                pieces.extend(tempo.push(&ramp(start, n)).row(0));
            }
            assert_eq!(pieces, whole.row(0));
        }
    }

    #[test]
    fn at_a_speed_of_one_frames_are_what_they_were() {
        let features = Features { data: vec![0.1, 0.7, -3.3, 1e-3, 5.0, 6.0], n_mels: 2, n_frames: 3 };
        assert_eq!(Tempo::new(1.0, 2).push(&features), features);
    }
}

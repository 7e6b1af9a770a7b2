//! Learning rates: a pure function of the update, so that resuming needs no state of its own.
//!
//! Updates count from 1. The warm-up reaches the peak at update `warmup_steps`, and a decay reaches the floor at its last
//! update (methods: "WSD and WSD-S", river-valley view).

use serde::{Deserialize, Serialize};

use crate::Error;

/// How the learning rate goes after the warm-up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    /// Its course.
    pub kind: ScheduleKind,
    /// Updates over which it rises from zero in a straight line.
    pub warmup_steps: u64,
    /// The same as a share of the run, instead; 0 counts updates.
    pub warmup_share: f64,
    /// The floor, as a share of the peak.
    pub floor: f64,
    /// `wsd` and `wsd_s`: how it falls.
    pub decay: Decay,
    /// `wsd` and `wsd_s`: share of each period that it falls in.
    pub decay_share: f64,
    /// `wsd` and `wsd_s`: updates at which a period ends, rising, the last one with the run; empty is one period, the whole run.
    /// More may be appended later: no update before changes.
    pub periods: Vec<u64>,
}

impl ScheduleConfig {
    /// Its warm-up counted in updates of a run of `max_steps`.
    #[must_use]
    pub fn of_run(&self, max_steps: u64) -> Self {
        if self.warmup_share == 0.0 {
            return self.clone();
        }
        let warmup_steps = ((self.warmup_share * max_steps as f64).round() as u64).clamp(1, max_steps.max(1));
        Self { warmup_steps, ..self.clone() }
    }
}

/// The course of a learning rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    /// Stays at the peak.
    Constant,
    /// A straight line to the floor.
    Linear,
    /// Half a cosine to the floor.
    Cosine,
    /// `peak * sqrt(warmup / update)`, not below the floor.
    InverseSqrt,
    /// Warm-up, stable, decay. Of several periods, each decays on a branch of its own, and the next one goes on from the
    /// weights before the decay.
    Wsd,
    /// The same on one branch: the next period goes on from the decayed weights, at the peak.
    WsdS,
}

/// How the learning rate falls at the end of a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// `1 / (x / floor + (1 - x) / peak)`.
    Inverse,
    /// A straight line.
    Linear,
    /// `floor + (peak - floor) * (1 - sqrt(x))`.
    OneMinusSqrt,
    /// Half a cosine.
    Cosine,
    /// `peak * (floor / peak)^x`.
    Exponential,
}

impl Decay {
    /// The rate when a share `x` of the decay is over.
    pub fn rate(self, x: f64, peak: f64, floor: f64) -> f64 {
        let between = |share: f64| floor + (peak - floor) * share;
        match self {
            Self::Inverse => (x / floor + (1.0 - x) / peak).recip(),
            Self::Linear => between(1.0 - x),
            Self::OneMinusSqrt => between(1.0 - x.sqrt()),
            Self::Cosine => between(f64::midpoint(1.0, (std::f64::consts::PI * x).cos())),
            Self::Exponential => peak * (floor / peak).powf(x),
        }
    }

    fn needs_floor(self) -> bool {
        matches!(self, Self::Inverse | Self::Exponential)
    }
}

/// What a period of the schedule is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The rate rises.
    Warmup,
    /// It is at the peak, or on its way where there is no peak to stay at.
    Stable,
    /// It falls to the floor.
    Decay,
}

/// A schedule that makes sense, for a run of so many updates.
#[derive(Debug, Clone)]
pub struct Schedule {
    config: ScheduleConfig,
    peak: f64,
    /// Of all updates, those of decays on branches included.
    n_steps: u64,
    /// In order.
    periods: Vec<Period>,
}

/// Updates of one period, as they are counted over the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Period {
    /// The last update before the decay.
    stable_end: u64,
    /// The last update of the decay.
    end: u64,
}

impl Schedule {
    /// A schedule with this peak for a run of `max_steps` updates, which is also where its last period ends.
    ///
    /// # Errors
    /// Names the key whose value makes no sense, and what would.
    pub fn new(config: &ScheduleConfig, peak: f64, max_steps: u64) -> Result<Self, Error> {
        let refuse = |key: &str, message: String| Err(Error::config(format!("schedule.{key}"), message));
        if !(peak.is_finite() && peak > 0.0) {
            return Err(Error::config("optimizer.learning_rate", format!("{peak} is not above 0")));
        }
        if max_steps == 0 {
            return Err(Error::config("train.max_steps", "0 is no training; write how many updates to make"));
        }
        if config.warmup_steps > max_steps {
            let message = format!("{} is more than the run's {max_steps} updates", config.warmup_steps);
            return refuse("warmup_steps", message);
        }
        if !(0.0..=1.0).contains(&config.floor) {
            return refuse("floor", format!("{} is not a share between 0 and 1", config.floor));
        }
        if config.kind == ScheduleKind::InverseSqrt && config.warmup_steps == 0 {
            return refuse("warmup_steps", "0 is too few: inverse_sqrt is measured in them".to_owned());
        }
        let has_periods = matches!(config.kind, ScheduleKind::Wsd | ScheduleKind::WsdS);
        let mut schedule = Self { config: config.clone(), peak, n_steps: max_steps, periods: Vec::new() };
        if !has_periods {
            if !config.periods.is_empty() {
                return refuse("periods", "only wsd and wsd_s have periods; leave it empty".to_owned());
            }
            return Ok(schedule);
        }
        if config.decay.needs_floor() && config.floor == 0.0 {
            let message = "0 is no floor that this decay could reach; 0.1 is usual".to_owned();
            return refuse("floor", message);
        }
        if !(config.decay_share > 0.0 && config.decay_share <= 1.0) {
            return refuse("decay_share", format!("{} is not between 0 and 1", config.decay_share));
        }
        schedule.divide(max_steps)?;
        Ok(schedule)
    }

    fn divide(&mut self, max_steps: u64) -> Result<(), Error> {
        let config = &self.config;
        let refuse = |message: String| Err(Error::config("schedule.periods", message));
        let mut ends = config.periods.clone();
        if ends.is_empty() {
            ends.push(max_steps);
        }
        if ends.last() != Some(&max_steps) {
            return refuse(format!("{ends:?} must end with train.max_steps, {max_steps}"));
        }
        // A decay from the first update on leaves nothing to return to.
        let n_stable_min = u64::from(config.kind == ScheduleKind::Wsd && ends.len() > 1);
        let (mut begin, mut n_branched) = (0, 0);
        for end in ends {
            if end <= begin {
                return refuse(format!("{:?} must rise", config.periods));
            }
            let n_decay = ((end - begin) as f64 * config.decay_share).round().max(1.0) as u64;
            let stable_end = end - n_decay;
            let warmup_end = if begin == 0 { config.warmup_steps } else { begin };
            if stable_end < warmup_end.max(begin + n_stable_min) {
                return refuse(format!(
                    "the decay of {n_decay} updates before {end} would begin before the warm-up ends, or with the \
                     period; lower schedule.decay_share or warmup_steps"
                ));
            }
            self.periods.push(Period { stable_end: stable_end + n_branched, end: end + n_branched });
            if config.kind == ScheduleKind::Wsd {
                n_branched += n_decay;
            }
            begin = end;
        }
        self.n_steps = self.periods.last().map_or(max_steps, |period| period.end);
        Ok(())
    }

    /// Updates of the whole run: `max_steps`, and those of decays on branches that are left again.
    pub fn n_steps(&self) -> u64 {
        self.n_steps
    }

    /// The highest rate.
    pub fn peak(&self) -> f64 {
        self.peak
    }

    /// The rate of update `step`, from 1 on.
    pub fn rate(&self, step: u64) -> f64 {
        let (config, peak) = (&self.config, self.peak);
        let floor = peak * config.floor;
        if step < config.warmup_steps {
            return peak * step as f64 / config.warmup_steps as f64;
        }
        let share = (step - config.warmup_steps) as f64
            / self.n_steps.saturating_sub(config.warmup_steps).max(1) as f64;
        match config.kind {
            ScheduleKind::Constant => peak,
            ScheduleKind::Linear => Decay::Linear.rate(share.min(1.0), peak, floor),
            ScheduleKind::Cosine => Decay::Cosine.rate(share.min(1.0), peak, floor),
            ScheduleKind::InverseSqrt => {
                (peak * (config.warmup_steps as f64 / step as f64).sqrt()).max(floor)
            }
            ScheduleKind::Wsd | ScheduleKind::WsdS => match self.period(step) {
                Some(period) if step > period.stable_end => {
                    let n_decay = (period.end - period.stable_end) as f64;
                    config.decay.rate((step - period.stable_end) as f64 / n_decay, peak, floor)
                }
                Some(_) => peak,
                None => floor,
            },
        }
    }

    /// What update `step` belongs to.
    pub fn stage(&self, step: u64) -> Stage {
        let is_decay = match self.config.kind {
            ScheduleKind::Linear | ScheduleKind::Cosine => false,
            _ => self.period(step).is_some_and(|period| step > period.stable_end),
        };
        match step {
            _ if step < self.config.warmup_steps => Stage::Warmup,
            _ if is_decay => Stage::Decay,
            _ => Stage::Stable,
        }
    }

    /// Whether update `step` is one of a branch: a decay of `wsd`, after which a run that goes on returns to the weights before.
    pub fn is_on_branch(&self, step: u64) -> bool {
        self.config.kind == ScheduleKind::Wsd && self.stage(step) == Stage::Decay
    }

    /// Whether the branch that update `step` is on, or the next one, is one that the run returns from.
    pub fn returns_after(&self, step: u64) -> bool {
        (step + 1..=self.n_steps())
            .skip_while(|step| self.is_on_branch(*step))
            .any(|step| !self.is_on_branch(step))
    }

    /// Whether a period ends with update `step`: the weights have settled, and are worth keeping.
    pub fn ends_period(&self, step: u64) -> bool {
        self.periods.iter().any(|period| period.end == step)
    }

    /// Whether a model that is no better after update `step` has stopped to learn. Before the end of a period it may only seem
    /// so: a high rate hides progress, and the decay shows it (methods, 4.2 and 4.3).
    pub fn tells(&self, step: u64) -> bool {
        self.periods.is_empty() || self.ends_period(step)
    }

    fn period(&self, step: u64) -> Option<Period> {
        self.periods.iter().copied().find(|period| step <= period.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(kind: ScheduleKind) -> ScheduleConfig {
        ScheduleConfig {
            kind,
            warmup_steps: 10,
            warmup_share: 0.0,
            floor: 0.1,
            decay: Decay::Linear,
            decay_share: 0.2,
            periods: Vec::new(),
        }
    }

    fn rates(schedule: &Schedule, steps: &[u64]) -> Vec<f64> {
        steps.iter().map(|step| schedule.rate(*step)).collect()
    }

    #[track_caller]
    fn assert_close(actual: &[f64], expected: &[f64]) {
        let is_close = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-6;
        assert!(
            actual.len() == expected.len() && actual.iter().zip(expected).all(is_close),
            "{actual:?}, not {expected:?}"
        );
    }

    /// Methods, 4.1: the table of shapes.
    #[test]
    fn decays_have_the_published_shapes() {
        let at = [0.0, 0.25, 0.5, 0.75, 1.0];
        for (decay, expected) in [
            (Decay::Inverse, [1.0, 0.307_692, 0.181_818, 0.129_032, 0.1]),
            (Decay::Linear, [1.0, 0.775, 0.55, 0.325, 0.1]),
            (Decay::OneMinusSqrt, [1.0, 0.55, 0.363_604, 0.220_577, 0.1]),
            (Decay::Cosine, [1.0, 0.868_198, 0.55, 0.231_802, 0.1]),
            (Decay::Exponential, [1.0, 0.562_341, 0.316_228, 0.177_828, 0.1]),
        ] {
            assert_close(&at.map(|x| decay.rate(x, 1.0, 0.1)), &expected);
        }
    }

    #[test]
    fn pieces_meet_at_their_boundaries() {
        let of = |kind| Schedule::new(&config(kind), 1.0, 110).expect("sense");
        assert_close(
            &rates(&of(ScheduleKind::Constant), &[1, 5, 9, 10, 11, 110]),
            &[0.1, 0.5, 0.9, 1.0, 1.0, 1.0],
        );
        assert_close(&rates(&of(ScheduleKind::Linear), &[9, 10, 60, 110, 200]), &[0.9, 1.0, 0.55, 0.1, 0.1]);
        assert_close(&rates(&of(ScheduleKind::Cosine), &[10, 35, 60, 110]), &[1.0, 0.868_198, 0.55, 0.1]);
        assert_close(
            &rates(&of(ScheduleKind::InverseSqrt), &[9, 10, 40, 90, 9000]),
            &[0.9, 1.0, 0.5, 1.0 / 3.0, 0.1],
        );
        let wsd = of(ScheduleKind::Wsd);
        // 22 of 110 updates decay.
        assert_close(&rates(&wsd, &[9, 10, 88, 99, 110]), &[0.9, 1.0, 1.0, 0.55, 0.1]);
        assert_eq!(
            [9, 10, 88, 89, 110].map(|step| wsd.stage(step)),
            [Stage::Warmup, Stage::Stable, Stage::Stable, Stage::Decay, Stage::Decay]
        );
        // Who makes the run longer may want to return.
        assert!(!wsd.is_on_branch(88) && wsd.is_on_branch(89) && wsd.is_on_branch(110));
        assert!(!wsd.is_on_branch(111) && wsd.ends_period(110));
    }

    #[test]
    fn one_branch_jumps_back_to_the_peak() {
        let config = ScheduleConfig { periods: vec![50, 110], ..config(ScheduleKind::WsdS) };
        let schedule = Schedule::new(&config, 1.0, 110).expect("sense");
        assert_eq!(schedule.n_steps(), 110);
        assert_close(
            &rates(&schedule, &[40, 45, 50, 51, 98, 104, 110]),
            &[1.0, 0.55, 0.1, 1.0, 1.0, 0.55, 0.1],
        );
        assert!((1..=110).all(|step| !schedule.is_on_branch(step)));
    }

    #[test]
    fn branches_are_left_and_returned_from() {
        let config = ScheduleConfig { periods: vec![50, 110], ..config(ScheduleKind::Wsd) };
        let schedule = Schedule::new(&config, 1.0, 110).expect("sense");
        // Ten updates of the first decay come on top; the second period has 60, of which 12 decay.
        assert_eq!(schedule.n_steps(), 120);
        assert_close(
            &rates(&schedule, &[40, 45, 50, 51, 108, 114, 120]),
            &[1.0, 0.55, 0.1, 1.0, 1.0, 0.55, 0.1],
        );
        let branched: Vec<u64> = (1..=120).filter(|step| schedule.is_on_branch(*step)).collect();
        assert_eq!(branched, [(41..=50).collect::<Vec<_>>(), (109..=120).collect()].concat());
        assert!(schedule.ends_period(50) && schedule.ends_period(120) && !schedule.ends_period(110));
    }

    #[test]
    fn a_warm_up_is_a_share_of_the_run() {
        let of = |warmup_share, max_steps| {
            let config = ScheduleConfig { warmup_share, ..config(ScheduleKind::Linear) };
            config.of_run(max_steps).warmup_steps
        };
        assert_eq!([of(0.25, 40), of(0.5, 7), of(1.0, 40), of(0.01, 40)], [10, 4, 40, 1]);
        assert_eq!(of(0.0, 40), 10, "counted in updates");
    }

    #[test]
    fn a_high_rate_does_not_tell_that_nothing_is_learnt() {
        for (kind, expected) in [
            (ScheduleKind::Wsd, [false, false, true]),
            (ScheduleKind::WsdS, [false, false, true]),
            (ScheduleKind::Cosine, [true, true, true]),
        ] {
            let schedule = Schedule::new(&config(kind), 1.0, 110).expect("sense");
            assert_eq!([50, 100, 110].map(|step| schedule.tells(step)), expected, "{kind:?}");
        }
    }

    #[test]
    fn the_sum_of_rates_has_its_closed_form() {
        let schedule = Schedule::new(&config(ScheduleKind::Wsd), 2.0, 110).expect("sense");
        let sum: f64 = (1..=110).map(|step| schedule.rate(step)).sum();
        // Warm-up 2 * (1 + ... + 9) / 10, stable 79 * 2, decay 22 steps from 2 to 0.2, the first excluded.
        let decay = 22.0 * 2.0 - 1.8 * (22.0 * 23.0 / 2.0) / 22.0;
        assert!((sum - (9.0 + 158.0 + decay)).abs() < 1e-9, "{sum}");
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_its_key() {
        let usual = config(ScheduleKind::Wsd);
        for (key, config, max_steps) in [
            ("schedule.warmup_steps", ScheduleConfig { warmup_steps: 111, ..usual.clone() }, 110),
            ("schedule.floor", ScheduleConfig { floor: 1.5, ..usual.clone() }, 110),
            ("schedule.floor", ScheduleConfig { floor: 0.0, decay: Decay::Inverse, ..usual.clone() }, 110),
            ("schedule.decay_share", ScheduleConfig { decay_share: 0.0, ..usual.clone() }, 110),
            ("schedule.periods", ScheduleConfig { periods: vec![50, 40, 110], ..usual.clone() }, 110),
            ("schedule.periods", ScheduleConfig { periods: vec![50], ..usual.clone() }, 110),
            ("schedule.periods", ScheduleConfig { decay_share: 0.95, ..usual.clone() }, 110),
            ("schedule.periods", ScheduleConfig { periods: vec![50, 51, 110], ..usual.clone() }, 110),
            ("schedule.periods", ScheduleConfig { periods: vec![110], ..config(ScheduleKind::Cosine) }, 110),
            (
                "schedule.warmup_steps",
                ScheduleConfig { warmup_steps: 0, ..config(ScheduleKind::InverseSqrt) },
                110,
            ),
            ("train.max_steps", usual.clone(), 0),
        ] {
            let error = Schedule::new(&config, 1.0, max_steps).expect_err(key).to_string();
            assert!(error.starts_with(&format!("{key}: ")), "{error}");
        }
    }
}

//! Who may come in: a bound on the requests and on the seconds of audio that wait or are being decoded, and how long
//! those who may not should stay away. Seconds are what the model works through: whole windows.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::config::Serve;

/// What may wait or run at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// Requests.
    pub max_requests: usize,
    /// Seconds of audio of all requests, above which nobody comes in. The last to come in may exceed it.
    pub max_audio_secs: f64,
}

impl Bounds {
    /// What the settings allow every model.
    pub fn of(serve: &Serve) -> Self {
        Self { max_requests: serve.max_queued_requests, max_audio_secs: serve.max_queued_audio_secs }
    }
}

/// The door of one model.
#[derive(Debug)]
pub struct Admission {
    bounds: Bounds,
    load: Mutex<Load>,
}

/// What is inside.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Load {
    /// Requests that wait or are being decoded.
    pub n_requests: usize,
    /// Seconds of audio that are still to be decoded.
    pub audio_secs: f64,
    /// Recent working time, and the seconds of audio that were decoded in it.
    busy_secs: f64,
    decoded_secs: f64,
}

/// Why a request may not come in now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Busy {
    /// When it is worth trying again, from the measured speed.
    pub retry_after: Duration,
    /// What is full.
    pub reason: BusyReason,
}

/// What is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BusyReason {
    /// There are as many requests as may be.
    Requests,
    /// There is as much audio as may be.
    Audio,
    /// It would not be done before the client gives up.
    Deadline,
}

/// The right to be inside. Dropping it leaves.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    audio_secs: f64,
    remaining_secs: f64,
}

/// Working time after which half of what was measured before is forgotten.
const MEMORY_SECS: f64 = 10.0;
/// Working time after which the pace is known well enough to refuse somebody for it.
const MIN_KNOWN_SECS: f64 = 1.0;
/// Shortest and longest advice, seconds: clients take anything above 120 for "never".
const RETRY_SECS: (f64, f64) = (0.1, 60.0);
/// Advice while nothing was measured yet.
const UNKNOWN_RETRY_SECS: f64 = 1.0;

impl Admission {
    /// An empty room.
    pub fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { bounds, load: Mutex::default() })
    }

    /// What is inside now.
    pub fn load(&self) -> Load {
        *self.lock()
    }

    /// Whether anybody could come in at all. Asked before a request's audio is read.
    pub fn check(&self) -> Result<(), Busy> {
        let load = self.lock();
        if load.n_requests >= self.bounds.max_requests {
            return Err(load.busy(BusyReason::Requests, load.mean_request_secs()));
        }
        if load.n_requests > 0 && load.audio_secs >= self.bounds.max_audio_secs {
            return Err(load.busy(BusyReason::Audio, load.audio_secs - self.bounds.max_audio_secs));
        }
        Ok(())
    }

    /// Lets a recording in, unless there is no room or it could not be done within `patience`.
    pub fn enter(self: &Arc<Self>, audio_secs: f64, patience: Option<Duration>) -> Result<Permit, Busy> {
        let mut load = self.lock();
        if load.n_requests >= self.bounds.max_requests {
            return Err(load.busy(BusyReason::Requests, load.mean_request_secs()));
        }
        // Not the sum: a long recording would be kept out for ever by short ones that come and go.
        if load.n_requests > 0 && load.audio_secs >= self.bounds.max_audio_secs {
            return Err(load.busy(BusyReason::Audio, load.audio_secs - self.bounds.max_audio_secs));
        }
        let known_pace = load.pace().filter(|_| load.busy_secs >= MIN_KNOWN_SECS);
        if let (Some(patience), Some(pace)) = (patience, known_pace) {
            // Requests take turns, so at worst everything inside is done first.
            let late_secs = (load.audio_secs + audio_secs) * pace - patience.as_secs_f64();
            // An empty room cannot become emptier: then it is for the client to decide how long it waits.
            if load.n_requests > 0 && late_secs > 0.0 {
                return Err(load.busy(BusyReason::Deadline, late_secs / pace));
            }
        }
        load.n_requests += 1;
        load.audio_secs += audio_secs;
        Ok(Permit { admission: self.clone(), audio_secs, remaining_secs: audio_secs })
    }

    /// Notes working time: what the advice is made of.
    pub fn worked(&self, busy_secs: f64) {
        let mut load = self.lock();
        load.busy_secs += busy_secs;
        if load.busy_secs > MEMORY_SECS && load.decoded_secs > 0.0 {
            load.busy_secs /= 2.0;
            load.decoded_secs /= 2.0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Load> {
        // Numbers are whole whatever a panicking thread was about to do.
        self.load.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Load {
    /// Working time per second of audio, once it was measured.
    pub fn pace(&self) -> Option<f64> {
        let pace = self.busy_secs / self.decoded_secs;
        pace.is_finite().then_some(pace)
    }

    fn mean_request_secs(&self) -> f64 {
        self.audio_secs / self.n_requests.max(1) as f64
    }

    /// Advice to come back when `audio_secs` of what is inside are done.
    fn busy(&self, reason: BusyReason, audio_secs: f64) -> Busy {
        let secs = self.pace().map_or(UNKNOWN_RETRY_SECS, |pace| pace * audio_secs);
        Busy { retry_after: Duration::from_secs_f64(secs.clamp(RETRY_SECS.0, RETRY_SECS.1)), reason }
    }
}

impl Permit {
    /// Takes so much for the seconds of what is to be decoded, of which nothing is yet: more is known now than at the door.
    pub fn expect(&mut self, audio_secs: f64) {
        let mut load = self.admission.lock();
        load.audio_secs = (load.audio_secs - self.remaining_secs + audio_secs).max(0.0);
        (self.audio_secs, self.remaining_secs) = (audio_secs, audio_secs);
    }

    /// Notes that so much of the recording is still to be decoded.
    pub fn remains(&mut self, share: f64) {
        let done_secs = (self.remaining_secs - share * self.audio_secs).clamp(0.0, self.remaining_secs);
        self.remaining_secs -= done_secs;
        let mut load = self.admission.lock();
        load.audio_secs = (load.audio_secs - done_secs).max(0.0);
        load.decoded_secs += done_secs;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut load = self.admission.lock();
        load.n_requests -= 1;
        load.audio_secs = (load.audio_secs - self.remaining_secs).max(0.0);
        if load.n_requests == 0 {
            // Sums of rounding errors end here.
            load.audio_secs = 0.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn room(max_requests: usize, max_audio_secs: f64) -> Arc<Admission> {
        Admission::new(Bounds { max_requests, max_audio_secs })
    }

    #[test]
    fn a_full_room_says_when_there_will_be_place() {
        let room = room(3, 100.0);
        let mut first = room.enter(150.0, None).expect("empty");
        assert_eq!(
            room.enter(50.0, None).expect_err("too much"),
            Busy { retry_after: Duration::from_secs(1), reason: BusyReason::Audio }
        );
        // 2 s for 30 s of audio; 20 of those that are left are too many.
        room.worked(2.0);
        first.remains(0.8);
        let busy = room.enter(1.0, None).expect_err("too much");
        assert_eq!((busy.retry_after.as_millis(), busy.reason), (1333, BusyReason::Audio));
        first.remains(0.5);
        let (_second, _third) =
            (room.enter(20.0, None).expect("fits"), room.enter(10.0, None).expect("fits"));
        assert_eq!(room.check().expect_err("full").reason, BusyReason::Requests);
        drop(first);
        assert!(room.check().is_ok());
    }

    #[test]
    fn who_could_not_be_served_in_time_is_refused_at_once() {
        let room = room(9, 1e6);
        let mut first = room.enter(100.0, None).expect("empty");
        room.worked(1.0);
        first.remains(0.9);
        // A tenth of a second per second: 90 + 10 take ten seconds.
        let patience = |secs| Some(Duration::from_secs(secs));
        assert_eq!(room.enter(10.0, patience(8)).expect_err("late").reason, BusyReason::Deadline);
        assert!(room.enter(10.0, patience(11)).is_ok());
        drop(first);
        assert!(room.enter(1e4, patience(1)).is_ok(), "an empty room takes everybody");
    }

    #[test]
    fn what_is_known_better_inside_counts() {
        let room = room(4, 100.0);
        let (mut first, _second) =
            (room.enter(10.0, None).expect("room"), room.enter(5.0, None).expect("room"));
        first.expect(120.0);
        assert_eq!(room.load().audio_secs, 125.0);
        assert_eq!(room.enter(1.0, None).expect_err("full").reason, BusyReason::Audio);
        first.remains(0.5);
        assert_eq!(room.load().audio_secs, 65.0);
        drop(first);
        assert_eq!(room.load().audio_secs, 5.0);
    }

    #[test]
    fn a_recording_longer_than_the_bound_is_taken_alone() {
        let room = room(4, 10.0);
        let long = room.enter(1000.0, None).expect("alone");
        assert!(room.check().is_err() && room.enter(1.0, None).is_err());
        drop(long);
        assert!(room.check().is_ok());
    }

    proptest! {
        #[test]
        fn the_room_is_empty_when_everybody_left(
            steps in prop::collection::vec((0.0..50.0f64, -0.5..1.5f64, any::<bool>()), 0..40),
        ) {
            let room = room(8, 200.0);
            let mut inside = Vec::new();
            for (audio_secs, share, leaves) in steps {
                if let Ok(mut permit) = room.enter(audio_secs, Some(Duration::from_secs(5))) {
                    permit.remains(share);
                    room.worked(0.1);
                    inside.push(permit);
                }
                if leaves && !inside.is_empty() {
                    inside.remove(0);
                }
                let load = room.load();
                prop_assert!(load.n_requests == inside.len() && load.n_requests <= 8);
                prop_assert!(load.audio_secs >= 0.0 && load.audio_secs <= 250.0 + 1e-6);
            }
            inside.clear();
            let load = room.load();
            prop_assert_eq!((load.n_requests, load.audio_secs), (0, 0.0));
        }
    }
}

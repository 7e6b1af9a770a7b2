//! When a transcription reached each point of its way, and what its time went into.

use std::time::{Duration, Instant};

use models::Work;

use super::Phase;

/// How a request came in.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// Its head was there.
    pub started: Instant,
    /// Its body was there: from now on the client waits.
    pub received: Instant,
    /// Its file was samples.
    pub decoded: Instant,
}

/// All of a request's way, until its response could be sent.
#[derive(Debug, Clone, Copy)]
pub struct Timeline {
    /// Before it was handed to the model.
    pub arrival: Arrival,
    /// The model had its result.
    pub finished: Instant,
    /// It was in the language that was asked for: at once, where no cascade was.
    pub translated: Instant,
    /// The result was a response.
    pub written: Instant,
}

/// What a request's time went into: all of it, each moment once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "Phase says what each one is")]
pub struct Spent {
    pub upload: Duration,
    pub decode: Duration,
    pub prepare: Duration,
    pub queue: Duration,
    pub encode: Duration,
    pub decode_steps: Duration,
    pub translate: Duration,
    pub render: Duration,
}

impl Arrival {
    /// Time for the upload.
    pub fn upload(&self) -> Duration {
        self.received.saturating_duration_since(self.started)
    }

    /// Time until the file was samples, its wait for a decoder included.
    pub fn decode(&self) -> Duration {
        self.decoded.saturating_duration_since(self.received)
    }
}

impl Timeline {
    /// Time for which the client waited: from the end of its upload until its response could be sent.
    pub fn wait(&self) -> Duration {
        self.written.saturating_duration_since(self.arrival.received)
    }

    /// Time from the request's head until its response could be sent.
    pub fn total(&self) -> Duration {
        self.written.saturating_duration_since(self.arrival.started)
    }

    /// Divides the whole time. The model says how long it worked; where it did not, the request waited: for its turn to
    /// be prepared, for the model's thread, for windows of others. Windows that were encoded side by side count each in
    /// [`Work::encode_secs`], so that the encoder gets what the others leave of the time, at most.
    pub fn spent(&self, work: &Work) -> Spent {
        let mut left = self.finished.saturating_duration_since(self.arrival.decoded);
        let mut take = |secs: f64| {
            let time = Duration::try_from_secs_f64(secs).unwrap_or_default().min(left);
            left -= time;
            time
        };
        let prepare = take(work.prepare_secs);
        let queue = take(work.queue_secs);
        let decode_steps = take(work.decode_secs);
        let encode = take(work.encode_secs);
        Spent {
            upload: self.arrival.upload(),
            decode: self.arrival.decode(),
            prepare,
            queue: queue + left,
            encode,
            decode_steps,
            translate: self.translated.saturating_duration_since(self.finished),
            render: self.written.saturating_duration_since(self.translated),
        }
    }
}

impl Spent {
    /// The phases after those that were noted as they ended: [`Phase::Upload`] and [`Phase::Decode`]. [`Phase::Translate`] is one of
    /// cascades alone.
    pub fn after_decode(&self) -> impl Iterator<Item = (Phase, Duration)> {
        let translate = Some((Phase::Translate, self.translate)).filter(|(_, time)| !time.is_zero());
        let all = [
            (Phase::Prepare, self.prepare),
            (Phase::Queue, self.queue),
            (Phase::Encode, self.encode),
            (Phase::DecodeSteps, self.decode_steps),
            (Phase::Render, self.render),
        ];
        all.into_iter().chain(translate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: f64) -> Duration {
        Duration::from_secs_f64(secs)
    }

    /// A request whose points are so many seconds apart.
    fn timeline([upload, decode, model, translate, render]: [f64; 5]) -> Timeline {
        let started = Instant::now();
        let received = started + secs(upload);
        let decoded = received + secs(decode);
        let finished = decoded + secs(model);
        let translated = finished + secs(translate);
        Timeline {
            arrival: Arrival { started, received, decoded },
            finished,
            translated,
            written: translated + secs(render),
        }
    }

    fn work([prepare_secs, queue_secs, encode_secs, decode_secs]: [f64; 4]) -> Work {
        Work { prepare_secs, queue_secs, encode_secs, decode_secs, ..Work::default() }
    }

    fn sum(spent: &Spent) -> Duration {
        let later: Duration = spent.after_decode().map(|(_, time)| time).sum();
        spent.upload + spent.decode + later
    }

    #[test]
    fn a_client_waits_from_the_end_of_its_upload_through_decoding_and_the_queue() {
        let timeline = timeline([8.0, 4.0, 2.0, 3.0, 1.0]);
        assert_eq!((timeline.wait(), timeline.total()), (secs(10.0), secs(18.0)));
        let spent = |timeline: Timeline| timeline.spent(&work([0.0; 4])).after_decode().count();
        let at_once = Timeline { translated: timeline.finished, ..timeline };
        assert_eq!((spent(timeline), spent(at_once)), (6, 5), "no cascade, no phase of it");
    }

    #[test]
    fn phases_add_up_to_the_whole_time() {
        let timeline = timeline([8.0, 4.0, 16.0, 2.0, 1.0]);
        for (given, [prepare, queue, encode, decode_steps]) in [
            // Two seconds between its steps, when others' windows were encoded.
            ([1.0, 5.0, 3.0, 5.0], [1.0, 7.0, 3.0, 5.0]),
            // Windows side by side: 8 s of two cores in 4 s.
            ([1.0, 5.0, 8.0, 6.0], [1.0, 5.0, 4.0, 6.0]),
            // What cannot be is not believed.
            ([-1.0, f64::NAN, 0.0, 99.0], [0.0, 0.0, 0.0, 16.0]),
        ] {
            let spent = timeline.spent(&work(given));
            let expected = Spent {
                upload: secs(8.0),
                decode: secs(4.0),
                prepare: secs(prepare),
                queue: secs(queue),
                encode: secs(encode),
                decode_steps: secs(decode_steps),
                translate: secs(2.0),
                render: secs(1.0),
            };
            assert_eq!(spent, expected, "{given:?}");
            assert_eq!(sum(&spent), timeline.total(), "{given:?}");
        }
    }
}

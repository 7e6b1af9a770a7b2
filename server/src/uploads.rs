//! Places for uploads: how many come in at once, and who leaves when there is none left for the next one.
//!
//! A client that sends slowly does no harm while there is room. When there is none, whoever has kept the server waiting the
//! longest for what it sent loses its place to the next one that can be served: those who let bytes trickle cannot keep
//! others out, whatever their number. What has arrived stays; so that large uploads that wait to be decoded do not keep out
//! small ones, these have some places more.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::config::Serve;

/// Waiting that everybody is granted: for the way to the client and back.
const GRACE: Duration = Duration::from_secs(1);

/// Places for requests that are received or decoded.
#[derive(Debug)]
pub struct UploadPlaces {
    max_uploads: usize,
    /// Places beyond those, for small uploads.
    n_small: usize,
    min_bytes_per_sec: u64,
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    n_came: u64,
    uploads: BTreeMap<u64, Upload>,
}

#[derive(Debug)]
struct Upload {
    pace: Arc<Mutex<Pace>>,
    /// Takes the place away; `None` once all has arrived.
    displace: Option<oneshot::Sender<()>>,
    /// Whether somebody is to have its place as soon as it is settled.
    is_wanted: bool,
}

/// A place. Dropping it leaves.
#[derive(Debug)]
pub struct Place {
    places: Arc<UploadPlaces>,
    number: u64,
    /// Whose place it is until it is settled.
    wants: Option<u64>,
}

/// Notes how an upload comes in, and hears of it when its place is gone. The default is watched by nobody.
#[derive(Debug, Default)]
pub struct Meter {
    pace: Arc<Mutex<Pace>>,
    displaced: Option<oneshot::Receiver<()>>,
    is_displaced: bool,
}

/// How an upload comes in.
#[derive(Debug, Default)]
struct Pace {
    n_bytes: u64,
    /// Time in which there was nothing to be read. What the disk and the parser take is not the client's doing.
    waited: Duration,
    waiting_since: Option<Instant>,
}

/// The place was given to somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Displaced;

/// All places are taken by others who come fast enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl UploadPlaces {
    /// As many as the settings say, and `n_small` more for small uploads; all of them free.
    pub fn new(limits: &Serve, n_small: usize) -> Arc<Self> {
        Arc::new(Self {
            max_uploads: limits.max_uploads,
            n_small,
            min_bytes_per_sec: limits.upload_min_bytes_per_sec,
            inside: Mutex::default(),
        })
    }

    /// A place for one more. If need be that is the slowest one's, which it keeps until [`Place::settle`].
    ///
    /// # Errors
    /// There is none.
    pub fn enter(self: &Arc<Self>, is_small: bool) -> Result<(Place, Meter), Full> {
        self.enter_at(Instant::now(), is_small)
    }

    fn enter_at(self: &Arc<Self>, now: Instant, is_small: bool) -> Result<(Place, Meter), Full> {
        let mut inside = self.inside.lock();
        let max_uploads = self.max_uploads + if is_small { self.n_small } else { 0 };
        let wants = match inside.n_places() < max_uploads {
            true => None,
            false => Some(inside.want_slowest(now, self.min_bytes_per_sec).ok_or(Full)?),
        };
        let number = inside.n_came;
        inside.n_came += 1;
        let (displace, displaced) = oneshot::channel();
        let meter = Meter { displaced: Some(displaced), ..Meter::default() };
        let pace = Arc::clone(&meter.pace);
        inside.uploads.insert(number, Upload { pace, displace: Some(displace), is_wanted: false });
        Ok((Place { places: Arc::clone(self), number, wants }, meter))
    }
}

impl Inside {
    /// Places that are taken: who is to leave and who is to have its place share one.
    fn n_places(&self) -> usize {
        self.uploads.values().filter(|upload| !upload.is_wanted).count()
    }

    /// Wants the place of whoever has kept us waiting the longest beyond what it was granted and what its bytes are worth.
    fn want_slowest(&mut self, now: Instant, min_bytes_per_sec: u64) -> Option<u64> {
        let still_coming =
            self.uploads.iter().filter(|(_, upload)| upload.displace.is_some() && !upload.is_wanted);
        let late = still_coming
            .filter_map(|(number, upload)| Some((upload.pace.lock().late(now, min_bytes_per_sec)?, *number)));
        let (_, slowest) = late.max()?;
        self.uploads.get_mut(&slowest)?.is_wanted = true;
        Some(slowest)
    }
}

impl Pace {
    fn waited(&self, now: Instant) -> Duration {
        let waiting = self.waiting_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.waited + waiting
    }

    /// Each byte is worth some waiting; how much more than that there was.
    fn late(&self, now: Instant, min_bytes_per_sec: u64) -> Option<Duration> {
        // Without a rate it is not a number, or infinite: nobody is late.
        let worth = Duration::try_from_secs_f64(self.n_bytes as f64 / min_bytes_per_sec as f64);
        let granted = GRACE.saturating_add(worth.unwrap_or(Duration::MAX));
        self.waited(now).checked_sub(granted).filter(|late| !late.is_zero())
    }
}

impl Place {
    /// Takes the place from whoever is to leave for it. Due once the request can be served: until then nobody leaves.
    ///
    /// # Errors
    /// That one has arrived meanwhile, and nobody else is slow.
    pub fn settle(&mut self) -> Result<(), Full> {
        self.settle_at(Instant::now())
    }

    fn settle_at(&mut self, now: Instant) -> Result<(), Full> {
        let Some(mut wanted) = self.wants.take() else { return Ok(()) };
        let mut inside = self.places.inside.lock();
        // It has left by itself; else it leaves now, unless it has arrived.
        while let Some(upload) = inside.uploads.get_mut(&wanted) {
            if let Some(displace) = upload.displace.take() {
                inside.uploads.remove(&wanted);
                // Whoever does not hear it has left by itself.
                let _ = displace.send(());
                break;
            }
            upload.is_wanted = false;
            wanted = inside.want_slowest(now, self.places.min_bytes_per_sec).ok_or(Full)?;
        }
        Ok(())
    }

    /// From now on nobody takes it.
    ///
    /// # Errors
    /// Somebody did.
    pub fn arrived(&self) -> Result<(), Displaced> {
        let mut inside = self.places.inside.lock();
        inside.uploads.get_mut(&self.number).ok_or(Displaced)?.displace = None;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self.places.inside.lock();
        inside.uploads.remove(&self.number);
        if let Some(wanted) = self.wants.and_then(|wanted| inside.uploads.get_mut(&wanted)) {
            wanted.is_wanted = false;
        }
    }
}

impl Meter {
    /// Whether the place is gone. Wakes the task when it goes.
    pub(crate) fn poll_displaced(&mut self, context: &mut Context<'_>) -> Poll<Displaced> {
        if let Some(displaced) = &mut self.displaced
            && let Poll::Ready(told) = Pin::new(displaced).poll(context)
        {
            // Nobody is left to tell it once all has arrived, or the place is given back.
            self.is_displaced = told.is_ok();
            self.displaced = None;
        }
        if self.is_displaced { Poll::Ready(Displaced) } else { Poll::Pending }
    }

    /// There is nothing to be read.
    pub(crate) fn wait(&self) {
        self.wait_at(Instant::now());
    }

    /// So much came.
    pub(crate) fn receive(&self, n_bytes: u64) {
        self.receive_at(Instant::now(), n_bytes);
    }

    fn wait_at(&self, now: Instant) {
        self.pace.lock().waiting_since.get_or_insert(now);
    }

    fn receive_at(&self, now: Instant, n_bytes: u64) {
        let mut pace = self.pace.lock();
        pace.waited = pace.waited(now);
        pace.waiting_since = None;
        pace.n_bytes += n_bytes;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Config;

    fn places(max_uploads: usize, upload_min_bytes_per_sec: u64) -> Arc<UploadPlaces> {
        let serve = Config::load(None).expect("the defaults").serve;
        UploadPlaces::new(&Serve { max_uploads, upload_min_bytes_per_sec, ..serve }, 0)
    }

    /// Enters, and settles at once.
    fn enter(places: &Arc<UploadPlaces>, now: Instant) -> Option<(Place, Meter)> {
        let (mut place, meter) = places.enter_at(now, false).ok()?;
        place.settle_at(now).ok()?;
        Some((place, meter))
    }

    fn is_displaced(meter: &mut Meter) -> bool {
        meter.poll_displaced(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    fn secs(secs: f64) -> Duration {
        Duration::from_secs_f64(secs)
    }

    #[test]
    fn the_slowest_gives_its_place_to_the_next_one() {
        let (places, start) = (places(3, 1_000), Instant::now());
        let mut uploads: Vec<_> = (0..3).map(|_| enter(&places, start).expect("a place")).collect();
        for (_, meter) in &uploads {
            meter.wait_at(start);
        }
        // 5 s of waiting: worth 9, 2 and 3 kB. The last one has arrived.
        for ((_, meter), n_bytes) in uploads.iter().zip([9_000, 2_000, 0]) {
            meter.receive_at(start + secs(5.0), n_bytes);
            meter.wait_at(start + secs(5.0));
        }
        uploads[2].0.arrived().expect("its own place");
        let late = start + secs(5.1);
        let (newcomer, _) = enter(&places, late).expect("a place");
        assert_eq!([0, 1, 2].map(|at: usize| is_displaced(&mut uploads[at].1)), [false, true, false]);
        assert_eq!(uploads[1].0.arrived(), Err(Displaced));
        // The others come fast enough, or are there. That one leaves the place which it lost makes no room.
        uploads.remove(1);
        assert!(enter(&places, late).is_none());
        drop(newcomer);
        assert!(enter(&places, late).is_some());
    }

    #[test]
    fn nobody_is_sent_away_for_waiting_that_is_not_its_own_doing() {
        let (places, start) = (places(1, 1_000), Instant::now());
        let (place, mut meter) = enter(&places, start).expect("a place");
        // The server was busy for an hour, and then waited for a moment.
        let later = start + secs(3600.0);
        meter.wait_at(later);
        assert!(enter(&places, later + secs(0.9)).is_none() && !is_displaced(&mut meter));
        meter.receive_at(later + secs(0.9), 500);
        meter.wait_at(later + secs(0.9));
        assert!(enter(&places, later + secs(1.5)).is_none() && !is_displaced(&mut meter));
        assert!(enter(&places, later + secs(1.6)).is_some() && is_displaced(&mut meter));
        drop(place);
    }

    #[test]
    fn nobody_leaves_for_a_request_that_is_not_served() {
        let (places, start) = (places(1, 1_000), Instant::now());
        let (slow, mut meter) = enter(&places, start).expect("a place");
        meter.wait_at(start);
        let later = start + secs(5.0);
        let (refused, _) = places.enter_at(later, false).expect("a place to come");
        // One comes for each place.
        assert!(places.enter_at(later, false).is_err());
        drop(refused);
        assert!(!is_displaced(&mut meter));
        // Who arrives meanwhile stays, and the other one is told.
        let (mut late, _) = places.enter_at(later, false).expect("a place to come");
        slow.arrived().expect("its own place");
        assert_eq!(late.settle_at(later), Err(Full));
        assert!(!is_displaced(&mut meter));
        drop(late);
        assert!(places.enter_at(later, false).is_err(), "taken by what has arrived");
        drop(slow);
        assert!(places.enter_at(later, false).is_ok());
    }

    #[test]
    fn small_uploads_have_places_of_their_own() {
        let serve = Config::load(None).expect("the defaults").serve;
        let places = UploadPlaces::new(&Serve { max_uploads: 2, ..serve }, 1);
        let now = Instant::now();
        let large: Vec<_> = (0..2).map(|_| places.enter_at(now, false).expect("a place")).collect();
        for (place, _) in &large {
            place.arrived().expect("its own place");
        }
        assert!(places.enter_at(now, false).is_err());
        let small = places.enter_at(now, true).expect("one more");
        assert!(places.enter_at(now, true).is_err());
        drop(small);
        assert!(places.enter_at(now, false).is_err() && places.enter_at(now, true).is_ok());
    }

    #[test]
    fn without_a_rate_everybody_stays() {
        let (places, start) = (places(1, 0), Instant::now());
        let (_place, meter) = enter(&places, start).expect("a place");
        meter.wait_at(start);
        assert!(enter(&places, start + secs(600.0)).is_none());
    }

    proptest! {
        #[test]
        fn there_are_never_more_than_there_may_be(
            steps in prop::collection::vec((0_u8..4, any::<prop::sample::Index>(), 0.0..3.0_f64), 0..60),
        ) {
            let (places, mut now) = (places(4, 1_000), Instant::now());
            let mut uploads = Vec::new();
            for (what, who, pause_secs) in steps {
                now += secs(pause_secs);
                match what {
                    0 => uploads.extend(enter(&places, now)),
                    _ if uploads.is_empty() => {}
                    1 => drop(uploads.swap_remove(who.index(uploads.len()))),
                    2 => drop(uploads[who.index(uploads.len())].0.arrived()),
                    _ => {
                        let (_, meter) = &uploads[who.index(uploads.len())];
                        meter.receive_at(now, 700);
                        meter.wait_at(now);
                    }
                }
                let n_held = uploads.iter_mut().map(|(_, meter)| is_displaced(meter)).filter(|gone| !gone).count();
                prop_assert_eq!(n_held, places.inside.lock().uploads.len());
                prop_assert!(n_held <= 4);
            }
            drop(uploads);
            prop_assert!(places.inside.lock().uploads.is_empty());
        }
    }
}

//! Threads that stay awake between many small tasks.
//!
//! A decoding step is some fifty products of microseconds each, one after the other. To wake a thread of the pool takes as long as
//! such a product, so within [`together`] the others do not sleep: they look for the next tasks until the work is over, and run what
//! else the pool has to do meanwhile. Who leads never waits for a thread that has not taken a task, so nothing depends on whether
//! the others come.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rayon::prelude::*;

/// How long a thread looks for a task before it leaves: there are more threads than tasks.
const PATIENCE: Duration = Duration::from_micros(200);
/// Looks for work between two offers of the processor to others.
const N_SPINS: usize = 64;
/// Bits of a claim's number of tasks, and of the next of them.
const N_BITS: u32 = 20;
/// More tasks than this are left to the pool.
const MAX_TASKS: usize = 1 << (N_BITS - 1);

type Job<'a> = dyn Fn(usize) + Sync + 'a;

/// What a thread does with the team that it may lead.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Nothing.
    Alone,
    /// It may hand out tasks.
    Leads,
    /// It has handed out some: what they do, each does alone.
    Runs,
}

thread_local! {
    /// The team that this thread may lead.
    static TEAM: Arc<Team> = Arc::default();
    static ROLE: Cell<Role> = const { Cell::new(Role::Alone) };
}

/// A role that ends, however it does.
struct Acting {
    before: Role,
}

impl Acting {
    fn begin(role: Role) -> Self {
        Self { before: ROLE.replace(role) }
    }
}

impl Drop for Acting {
    fn drop(&mut self) {
        ROLE.set(self.before);
    }
}

/// Computes `work`, whose tasks on this thread are shared with threads that are kept awake for them.
pub fn together<T>(work: impl FnOnce() -> T) -> T {
    let n_threads = rayon::current_num_threads();
    if n_threads == 1 || ROLE.get() != Role::Alone {
        return work();
    }
    /// Sends them home, however the work ends.
    struct Ending(Arc<Team>);
    impl Drop for Ending {
        fn drop(&mut self) {
            self.0.period.fetch_add(1, Ordering::Relaxed);
        }
    }
    let team = TEAM.with(Arc::clone);
    team.n_places.store(n_threads - 1, Ordering::Relaxed);
    let period = team.period.fetch_add(1, Ordering::Relaxed) + 1;
    let helped = team.clone();
    // To each thread itself: one of them would else take what was meant for several.
    rayon::spawn_broadcast(move |_| helped.help(period));
    let (_ending, _acting) = (Ending(team), Acting::begin(Role::Leads));
    work()
}

/// Whether tasks of this thread are taken by threads that are awake, so that small ones are worth it.
pub(super) fn is_together() -> bool {
    ROLE.get() == Role::Leads
}

/// Calls `run` for each item, on all threads.
pub fn for_each<T: Send>(items: &mut [T], run: impl Fn(&mut T) + Sync + Send) {
    if !is_together() || items.len() > MAX_TASKS {
        return items.par_iter_mut().for_each(run);
    }
    if let [item] = items {
        return run(item);
    }
    /// Items of which every thread takes others.
    struct Items<T>(*mut T);
    // SAFETY: what is sent to other threads is each item, once; they are Send.
    unsafe impl<T: Send> Sync for Items<T> {}
    impl<T> Items<T> {
        /// # Safety
        /// There is such an item, and nobody else has it.
        #[expect(clippy::mut_from_ref, reason = "each is lent once")]
        unsafe fn get(&self, i: usize) -> &mut T {
            // SAFETY: the caller's promise.
            unsafe { &mut *self.0.add(i) }
        }
    }
    let n_items = items.len();
    let items = Items(items.as_mut_ptr());
    // SAFETY: the team calls it once with every number below `n_items`, and all calls have returned before it does.
    let job = |i: usize| run(unsafe { items.get(i) });
    let acting = Acting::begin(Role::Runs);
    let result = TEAM.with(|team| team.run(n_items, &job));
    drop(acting);
    if let Err(panic) = result {
        resume_unwind(panic);
    }
}

/// One who leads, and those who help.
#[derive(Default)]
struct Team {
    /// Which job it is, its number of tasks, and the first of them that nobody has taken.
    claims: AtomicU64,
    /// Tasks that are not done.
    n_left: AtomicUsize,
    job: UnsafeCell<Option<*const Job<'static>>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// One more whenever work begins or ends: odd while there is some.
    period: AtomicUsize,
    /// Threads that may still come.
    n_places: AtomicUsize,
}

// SAFETY: the job is written by who leads while no task of it is left, and read by who has taken a task, which is left until it is
// done. Both are ordered by `claims` and `n_left`. It can be called from any thread.
unsafe impl Sync for Team {}
// SAFETY: likewise.
unsafe impl Send for Team {}

impl Team {
    /// Calls `job` with every number below `n`, at most `MAX_TASKS`. To be called by who leads, and not from within a job.
    fn run(&self, n: usize, job: &Job<'_>) -> Result<(), Box<dyn Any + Send>> {
        // SAFETY: only its lifetime changes; nobody calls it after this function, which returns when all tasks are done.
        let job: *const Job<'static> = unsafe { std::mem::transmute::<*const Job<'_>, _>(job) };
        // SAFETY: no task is left, so nobody reads it.
        unsafe { *self.job.get() = Some(job) };
        self.n_left.store(n, Ordering::Relaxed);
        let number = (self.claims.load(Ordering::Relaxed) >> (2 * N_BITS)).wrapping_add(1);
        self.claims.store(number << (2 * N_BITS) | (n as u64) << N_BITS, Ordering::Release);
        self.work();
        let mut n_spins = 0;
        while self.n_left.load(Ordering::Acquire) > 0 {
            wait(&mut n_spins);
        }
        match self.panic.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(panic) => Err(panic),
            None => Ok(()),
        }
    }

    /// Does tasks as long as there are any. Says whether there was one.
    fn work(&self) -> bool {
        let mut has_worked = false;
        while let Some(i) = self.claim() {
            has_worked = true;
            // SAFETY: a task of it is left, this one: who leads waits for it before the job ends or changes.
            let job = unsafe { (*self.job.get()).map(|job| &*job) };
            let result = catch_unwind(AssertUnwindSafe(|| job.into_iter().for_each(|job| job(i))));
            if let Err(panic) = result {
                *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
            }
            self.n_left.fetch_sub(1, Ordering::Release);
        }
        has_worked
    }

    /// Takes a task.
    fn claim(&self) -> Option<usize> {
        let next = |claims: u64| {
            let [n, next] = [claims >> N_BITS, claims].map(|bits| bits & ((1 << N_BITS) - 1));
            (next < n).then_some(next as usize)
        };
        // Looked at first: whoever takes a task that there is not leaves its trace.
        next(self.claims.load(Ordering::Relaxed))?;
        // Of whichever job it is by now.
        next(self.claims.fetch_add(1, Ordering::Acquire))
    }

    /// Helps until the work of a period is over, or there was nothing to do for a while.
    fn help(&self, period: usize) {
        let is_over = || self.period.load(Ordering::Relaxed) != period;
        let take_place = |n: usize| n.checked_sub(1);
        // Who leads may be of the pool or not, and is one of the threads that compute either way.
        if is_over()
            || ROLE.get() != Role::Alone
            || self.n_places.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take_place).is_err()
        {
            return;
        }
        // What else it runs meanwhile finds it taken.
        let _acting = Acting::begin(Role::Runs);
        let mut last_task = Instant::now();
        let mut n_spins = 0;
        while !is_over() {
            if self.work() {
                last_task = Instant::now();
                n_spins = 0;
            }
            wait(&mut n_spins);
            if n_spins.is_multiple_of(N_SPINS) {
                // Others who use the pool are not kept waiting.
                rayon::yield_now();
                if last_task.elapsed() > PATIENCE {
                    break;
                }
            }
        }
    }
}

/// A moment, and now and then one for other threads.
fn wait(n_spins: &mut usize) {
    *n_spins += 1;
    if n_spins.is_multiple_of(N_SPINS) {
        thread::yield_now();
    } else {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Items counted up by jobs of all sizes.
    fn count(n_jobs: usize, n_items: usize) -> Vec<usize> {
        let mut items = vec![0; n_items];
        for n in (0..n_jobs).map(|i| i % (n_items + 1)) {
            for_each(&mut items[..n], |item| *item += 1);
        }
        items
    }

    #[test]
    fn every_task_is_done_once_by_whoever_leads() {
        let alone = count(20_000, 17);
        let threads: Vec<_> = (0..3).map(|_| thread::spawn(|| together(|| count(20_000, 17)))).collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap_or_default(), alone);
        }
        // From within the pool, and one within another.
        assert_eq!(
            rayon::join(|| together(|| together(|| count(500, 9))), || count(500, 9)).0,
            count(500, 9)
        );
        assert!(!is_together());
    }

    #[test]
    fn work_within_a_task_is_its_own() {
        let mut sums = vec![0; 64];
        for _ in 0..50 {
            together(|| {
                for_each(&mut sums, |sum| *sum = together(|| count(12, 5)).iter().sum::<usize>());
            });
        }
        assert_eq!(sums, vec![count(12, 5).iter().sum::<usize>(); 64]);
    }

    #[test]
    fn tasks_have_tasks_of_their_own() {
        let mut sums = vec![0; 50];
        together(|| for_each(&mut sums, |sum| *sum = count(30, 5).iter().sum::<usize>()));
        assert_eq!(sums, vec![count(30, 5).iter().sum::<usize>(); 50]);
    }

    #[test]
    fn a_panic_of_any_task_is_the_leaders_and_the_others_are_done() {
        let mut items: Vec<usize> = (0..100).collect();
        let result = catch_unwind(AssertUnwindSafe(|| {
            together(|| {
                for_each(&mut items, |item| {
                    assert!(*item != 70, "item {item}");
                    *item = 1000;
                });
            });
        }));
        let message = result.err().and_then(|panic| panic.downcast::<String>().ok());
        assert!(message.is_some_and(|message| message.contains("item 70")));
        assert_eq!(items.iter().filter(|item| **item == 1000).count(), 99);
        // And the next ones begin anew.
        assert!(!is_together());
        assert_eq!(together(|| count(100, 8)), count(100, 8));
    }
}

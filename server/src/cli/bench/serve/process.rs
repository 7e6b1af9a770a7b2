//! What the service's process takes from the machine, as Linux tells it in `/proc`.

use std::{
    fmt, fs, io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, bail};
use serde::Serialize;

use crate::{cli::bench::middle, process};

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(250);
/// Linux counts processor time in hundredths of a second.
const TICKS_PER_SEC: f64 = 100.0;

/// One look at the process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    /// Requests that had ended.
    requests: usize,
    rss_bytes: u64,
    /// Of the children that decode uploads.
    children_rss_bytes: u64,
    /// Since the process began, with its children.
    cpu_secs: f64,
    open_files: u64,
    threads: u64,
}

/// What became of a count.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Span {
    first: u64,
    last: u64,
    max: u64,
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at first, {} at last, at most {}", self.first, self.last, self.max)
    }
}

/// The figures of a run.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Usage {
    pub(super) samples: usize,
    pub(super) cpu_secs: f64,
    pub(super) rss_first_quarter_bytes: f64,
    pub(super) rss_last_quarter_bytes: f64,
    pub(super) rss_max_bytes: u64,
    /// Of the straight line through all samples; the start is in it.
    pub(super) rss_bytes_per_1000_requests: f64,
    /// Of the line through the second half of the samples.
    pub(super) rss_bytes_per_1000_requests_second_half: f64,
    pub(super) children_rss_max_bytes: u64,
    pub(super) open_files: Span,
    pub(super) threads: Span,
}

/// Looks at the process until it is stopped.
pub(super) struct Observer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<Vec<Sample>>>,
}

impl Observer {
    pub(super) fn start(pid: u32, ended: Arc<AtomicUsize>) -> anyhow::Result<Self> {
        sample(pid, 0).with_context(|| format!("--pid {pid}: /proc does not describe this process"))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let observe = move || {
            let mut samples = Vec::new();
            loop {
                // Looked at before the sample: the last one is taken after the load.
                let is_last = stopped.load(Ordering::Relaxed);
                samples.push(sample(pid, ended.load(Ordering::Relaxed))?);
                if is_last {
                    return Ok(samples);
                }
                thread::sleep(INTERVAL);
            }
        };
        let thread = thread::Builder::new().name("process".to_owned()).spawn(observe)?;
        Ok(Self { stop, thread })
    }

    pub(super) fn stop(self) -> anyhow::Result<Usage> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(samples) => Ok(usage(&samples.context("the process ended while it was loaded")?)),
            Err(_) => bail!("the thread that looks at the process has panicked"),
        }
    }
}

fn sample(pid: u32, requests: usize) -> io::Result<Sample> {
    let (own, reaped) = cpu_ticks(pid)?;
    let unknown = || io::Error::other(format!("/proc/{pid}/status says nothing of memory or threads"));
    let mut sample = Sample {
        requests,
        rss_bytes: process::status_bytes(pid, "VmRSS:").ok_or_else(unknown)?,
        children_rss_bytes: 0,
        cpu_secs: 0.0,
        open_files: fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64,
        threads: process::status_count(pid, "Threads:").ok_or_else(unknown)?,
    };
    let mut ticks = own + reaped;
    for child in children(pid)? {
        // A child that has ended meanwhile is counted by its parent the next time.
        ticks += cpu_ticks(child).map_or(0, |(own, _)| own);
        sample.children_rss_bytes += process::status_bytes(child, "VmRSS:").unwrap_or(0);
    }
    sample.cpu_secs = ticks as f64 / TICKS_PER_SEC;
    Ok(sample)
}

/// Processor time of the process, and of its children that have ended.
fn cpu_ticks(pid: u32) -> io::Result<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The program's name, in brackets, may hold anything.
    let after_name = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<u64> =
        after_name.split_whitespace().skip(11).take(4).filter_map(|field| field.parse().ok()).collect();
    match fields[..] {
        [user, system, children_user, children_system] => {
            Ok((user + system, children_user + children_system))
        }
        _ => Err(io::Error::other(format!("/proc/{pid}/stat is not as expected"))),
    }
}

fn children(pid: u32) -> io::Result<Vec<u32>> {
    let threads: Vec<PathBuf> = fs::read_dir(format!("/proc/{pid}/task"))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path().join("children")))
        .collect();
    // A thread may end between the two looks; a kernel may not list children at all.
    let lists = threads.iter().filter_map(|path| fs::read_to_string(path).ok());
    Ok(lists
        .flat_map(|list| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>())
        .collect())
}

fn usage(samples: &[Sample]) -> Usage {
    let rss = |samples: &[Sample]| samples.iter().map(|sample| sample.rss_bytes as f64).collect::<Vec<_>>();
    let quarter = samples.len().div_ceil(4);
    let span = |of: &dyn Fn(&Sample) -> u64| Span {
        first: samples.first().map_or(0, of),
        last: samples.last().map_or(0, of),
        max: samples.iter().map(of).max().unwrap_or(0),
    };
    Usage {
        samples: samples.len(),
        cpu_secs: samples.last().map_or(0.0, |last| last.cpu_secs - samples[0].cpu_secs),
        rss_first_quarter_bytes: middle(rss(&samples[..quarter])),
        rss_last_quarter_bytes: middle(rss(&samples[samples.len() - quarter..])),
        rss_max_bytes: span(&|sample| sample.rss_bytes).max,
        rss_bytes_per_1000_requests: slope(samples) * 1000.0,
        rss_bytes_per_1000_requests_second_half: slope(&samples[samples.len() / 2..]) * 1000.0,
        children_rss_max_bytes: span(&|sample| sample.children_rss_bytes).max,
        open_files: span(&|sample| sample.open_files),
        threads: span(&|sample| sample.threads),
    }
}

/// Bytes per request, by least squares.
fn slope(samples: &[Sample]) -> f64 {
    let n = samples.len() as f64;
    let mean = |of: &dyn Fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(&|sample| sample.requests as f64), mean(&|sample| sample.rss_bytes as f64));
    let sum = |of: &dyn Fn(f64, f64) -> f64| {
        samples.iter().map(|sample| of(sample.requests as f64 - x, sample.rss_bytes as f64 - y)).sum::<f64>()
    };
    let spread = sum(&|x, _| x * x);
    if spread > 0.0 { sum(&|x, y| x * y) / spread } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(rss_of: impl Fn(usize) -> u64) -> Vec<Sample> {
        (0..100)
            .map(|index| Sample {
                requests: 20 * index,
                rss_bytes: rss_of(20 * index),
                children_rss_bytes: 5,
                cpu_secs: 10.0 + index as f64,
                open_files: 30 - index as u64 % 3,
                threads: 7,
            })
            .collect()
    }

    #[test]
    fn growth_is_told_per_thousand_requests() {
        let usage = usage(&samples(|requests| 1_000_000 + 300 * requests as u64));
        assert!((usage.rss_bytes_per_1000_requests - 300_000.0).abs() < 1e-3, "{usage:?}");
        assert!((usage.rss_bytes_per_1000_requests_second_half - 300_000.0).abs() < 1e-3, "{usage:?}");
        assert_eq!(usage.rss_max_bytes, 1_000_000 + 300 * 1980);
        assert!(usage.rss_first_quarter_bytes < usage.rss_last_quarter_bytes);
        assert_eq!((usage.cpu_secs, usage.open_files.max, usage.threads.last), (99.0, 30, 7));
    }

    #[test]
    fn what_grows_once_is_flat_afterwards() {
        let usage = usage(&samples(|requests| if requests < 500 { 1 << 20 } else { 3 << 20 }));
        assert!(usage.rss_bytes_per_1000_requests > 0.0);
        assert_eq!(usage.rss_bytes_per_1000_requests_second_half, 0.0);
        assert_eq!(slope(&[]), 0.0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_can_be_looked_at() {
        let sample = sample(std::process::id(), 3).expect("a sample");
        assert!(sample.rss_bytes > 1 << 20 && sample.open_files > 2 && sample.threads > 0, "{sample:?}");
        assert!(Observer::start(u32::MAX, Arc::default()).is_err());
    }
}

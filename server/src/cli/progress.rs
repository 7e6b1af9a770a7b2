//! How far the work is: bars on a terminal, lines anywhere else, always on standard error.

use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use recipes::train::StepReport;

use super::output::{printable, status_line};
use crate::registry;

/// Time between the lines that stand in for a moving bar.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Whether and how progress is shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    is_quiet: bool,
    is_terminal: bool,
}

impl Style {
    pub(super) fn new(is_quiet: bool) -> Self {
        Self { is_quiet, is_terminal: io::stderr().is_terminal() }
    }

    /// A line about what is being done.
    pub(super) fn note(self, line: &str) {
        if !self.is_quiet {
            status_line(line);
        }
    }

    fn bar(self, template: &str, message: String) -> Option<ProgressBar> {
        if self.is_quiet || !self.is_terminal {
            return None;
        }
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(0).with_style(style.progress_chars("=> ")).with_message(message);
        bar.enable_steady_tick(Duration::from_millis(200));
        Some(bar)
    }
}

/// The progress of one recording.
pub(super) struct Recording {
    style: Style,
    name: String,
    bar: Option<ProgressBar>,
    started: Instant,
    last_line: Instant,
}

impl Recording {
    /// Starts the clock. `name` includes the position among the inputs.
    pub(super) fn start(style: Style, name: &str) -> Self {
        let name = printable(name).into_owned();
        let bar = style.bar("{msg} [{bar:30}] {prefix}", name.clone());
        Self { style, name, bar, started: Instant::now(), last_line: Instant::now() }
    }

    /// So much of it is decoded.
    pub(super) fn update(&mut self, decoded_secs: f64, duration_secs: f64) {
        let line = format!("{decoded_secs:.1} of {duration_secs:.1} s, {}", self.speed(decoded_secs));
        if let Some(bar) = &self.bar {
            // Bars count whole steps: milliseconds.
            bar.set_length((duration_secs * 1000.0) as u64);
            bar.set_position((decoded_secs * 1000.0) as u64);
            bar.set_prefix(line);
        } else if self.last_line.elapsed() >= LINE_INTERVAL {
            self.last_line = Instant::now();
            self.style.note(&format!("{}: {line}", self.name));
        }
    }

    /// It is done.
    pub(super) fn finish(self, duration_secs: f64) {
        let elapsed_secs = self.started.elapsed().as_secs_f64();
        let speed = self.speed(duration_secs);
        self.clear();
        self.style.note(&format!("{}: {duration_secs:.1} s in {elapsed_secs:.1} s, {speed}", self.name));
    }

    /// It is spoken; the first sound was there so soon.
    pub(super) fn finish_speaking(self, duration_secs: f64, first_sound_secs: f64) {
        let elapsed_secs = self.started.elapsed().as_secs_f64();
        let speed = self.speed(duration_secs);
        self.clear();
        self.style.note(&format!(
            "{}: {duration_secs:.1} s in {elapsed_secs:.1} s, {speed}, first sound after {first_sound_secs:.2} s",
            self.name
        ));
    }

    /// Takes the bar off the terminal.
    pub(super) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn speed(&self, audio_secs: f64) -> String {
        let elapsed_secs = self.started.elapsed().as_secs_f64().max(1e-3);
        format!("{:.1}x real time", audio_secs / elapsed_secs)
    }
}

/// The progress of things that are counted: requests, recordings, rows.
pub(super) struct Items {
    style: Style,
    name: String,
    /// `None` until it is known.
    total: Option<usize>,
    bar: Option<ProgressBar>,
    last_line: Instant,
}

impl Items {
    pub(super) fn start(style: Style, name: &str, total: Option<usize>) -> Self {
        let template =
            if total.is_some() { "{msg} [{bar:30}] {pos}/{len} {per_sec}" } else { "{msg} {pos} {per_sec}" };
        let bar = style.bar(template, name.to_owned());
        let items = Self { style, name: name.to_owned(), total, bar, last_line: Instant::now() };
        items.show_total();
        items
    }

    fn show_total(&self) {
        if let (Some(bar), Some(total)) = (&self.bar, self.total) {
            bar.set_length(total as u64);
        }
    }

    /// So many of so many are done; for those who learn how many there are on the way.
    pub(super) fn update_of(&mut self, done: usize, total: usize) {
        if self.total != Some(total) {
            self.total = Some(total);
            self.show_total();
        }
        self.update(done);
    }

    /// So many are done.
    pub(super) fn update(&mut self, done: usize) {
        if let Some(bar) = &self.bar {
            bar.set_position(done as u64);
        } else if self.last_line.elapsed() >= LINE_INTERVAL {
            self.last_line = Instant::now();
            let of = self.total.map(|total| format!(" of {total}")).unwrap_or_default();
            self.style.note(&format!("{}: {done}{of}", self.name));
        }
    }

    /// Takes the bar off the terminal.
    pub(super) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The progress of a training run.
pub(super) struct Training {
    style: Style,
    /// Before everything: which of several runs it is.
    run: String,
    bar: Option<ProgressBar>,
    last_line: Instant,
    /// Means over the latest updates, each counting less the longer ago it was.
    loss: f64,
    /// Seconds of audio, or tokens, of an update, and with its padding.
    amount: f64,
    padded: f64,
    busy_secs: f64,
}

/// What the latest update counts in a mean.
const NEWEST: f64 = 0.05;

impl Training {
    pub(super) fn start(style: Style, run: &str, step: u64, n_steps: u64) -> Self {
        let bar = style.bar("{prefix}[{bar:30}] {pos}/{len} {msg}, {eta} left", String::new());
        if let Some(bar) = &bar {
            bar.set_prefix(run.to_owned());
            bar.set_length(n_steps);
            bar.set_position(step);
            // What an earlier run did says nothing about the speed of this one.
            bar.reset_eta();
        }
        let last_line = Instant::now();
        let run = run.to_owned();
        Self { style, run, bar, last_line, loss: 0.0, amount: 0.0, padded: 0.0, busy_secs: 0.0 }
    }

    /// Another update was made.
    pub(super) fn update(&mut self, report: &StepReport) {
        let is_first = self.busy_secs == 0.0;
        let follow = |mean: &mut f64, value: f64| {
            *mean = if is_first { value } else { *mean + NEWEST * (value - *mean) };
        };
        if !report.is_skipped {
            follow(&mut self.loss, report.loss);
        }
        let extent = &report.extent;
        // Texts have no seconds.
        let (amount, padded, unit) = match extent.padded_secs > 0.0 {
            true => (extent.audio_secs, extent.padded_secs, "x real time"),
            false => (extent.n_tokens as f64, extent.padded_tokens as f64, "tokens/s"),
        };
        follow(&mut self.amount, amount);
        follow(&mut self.padded, padded);
        follow(&mut self.busy_secs, report.busy_secs);
        let line = format!(
            "loss {:.3}, {:.0} {unit}, padding {:.1} %",
            self.loss,
            self.amount / self.busy_secs.max(1e-9),
            100.0 * (1.0 - self.amount / self.padded.max(1e-9))
        );
        if let Some(bar) = &self.bar {
            bar.set_position(report.step);
            bar.set_message(line);
        } else if self.last_line.elapsed() >= LINE_INTERVAL {
            self.last_line = Instant::now();
            let left_secs = (report.n_steps - report.step) as f64 * self.busy_secs;
            self.style.note(&format!(
                "{}update {} of {}: {line}, {:.0} min left",
                self.run,
                report.step,
                report.n_steps,
                left_secs / 60.0
            ));
        }
    }

    /// A line that does not disturb the bar.
    pub(super) fn note(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.style.note(line)),
            None => self.style.note(line),
        }
    }

    /// Takes the bar off the terminal.
    pub(super) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The progress of fetching a model, file after file.
pub(super) struct Download {
    style: Style,
    file: String,
    bar: Option<ProgressBar>,
    last_line: Instant,
}

impl Download {
    pub(super) fn new(style: Style) -> Self {
        Self { style, file: String::new(), bar: None, last_line: Instant::now() }
    }

    /// Takes a report of the registry.
    pub(super) fn update(&mut self, at: registry::Progress<'_>) {
        if at.file != self.file {
            self.clear();
            at.file.clone_into(&mut self.file);
            let template = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
            self.bar = self.style.bar(template, self.file.clone());
            if let Some(bar) = &self.bar {
                // What an earlier run had fetched says nothing about the speed of this one.
                bar.set_position(at.received);
                bar.reset_eta();
            } else {
                self.style.note(&format!("fetching {}", self.file));
            }
        }
        if let Some(bar) = &self.bar {
            bar.set_length(at.total.unwrap_or(at.received));
            bar.set_position(at.received);
        } else if self.last_line.elapsed() >= LINE_INTERVAL {
            self.last_line = Instant::now();
            let total = at.total.map_or_else(|| "?".to_owned(), bytes);
            self.style.note(&format!("fetching {}: {} of {total}", self.file, bytes(at.received)));
        }
    }

    /// Takes the bar off the terminal.
    pub(super) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A size for people.
pub(super) fn bytes(bytes: u64) -> String {
    indicatif::DecimalBytes(bytes).to_string()
}

//! How far the work is: bars on a terminal, lines anywhere else, always on standard error.

use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

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

/// The progress of requests to a service.
pub(super) struct Requests {
    style: Style,
    name: String,
    total: usize,
    bar: Option<ProgressBar>,
    last_line: Instant,
}

impl Requests {
    pub(super) fn start(style: Style, name: &str, total: usize) -> Self {
        let bar = style.bar("{msg} [{bar:30}] {pos}/{len} {per_sec}", name.to_owned());
        if let Some(bar) = &bar {
            bar.set_length(total as u64);
        }
        Self { style, name: name.to_owned(), total, bar, last_line: Instant::now() }
    }

    /// So many of them have ended.
    pub(super) fn update(&mut self, ended: usize) {
        if let Some(bar) = &self.bar {
            bar.set_position(ended as u64);
        } else if self.last_line.elapsed() >= LINE_INTERVAL {
            self.last_line = Instant::now();
            self.style.note(&format!("{}: {ended} of {}", self.name, self.total));
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

//! What a block and a parameter cost: parameters of a stack by its depth, and seconds by its size.

use serde::Serialize;

use super::{Error, ShapeRun};

/// `fixed + slope * x`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Line {
    /// At 0.
    pub fixed: f64,
    /// For each more.
    pub slope: f64,
}

impl Line {
    /// Least squares; None of fewer than two different abscissas.
    pub(super) fn through(points: &[(f64, f64)]) -> Option<Self> {
        let n = points.len() as f64;
        let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0 / n, y + point.1 / n));
        let square: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
        let product: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
        (square > 0.0).then(|| Self { fixed: y - product / square * x, slope: product / square })
    }

    /// The value at `x`.
    pub fn at(&self, x: f64) -> f64 {
        self.fixed + self.slope * x
    }
}

/// Parameters by depth, where the runs differ in nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Depths {
    /// Of the encoder: what its blocks share, and a block.
    pub encoder: Line,
    /// Of the decoder.
    pub decoder: Line,
}

impl Depths {
    /// None where runs don't say their depths, or differ in width, too: then a line misses them, or has less than nothing at one block.
    pub(super) fn of(runs: &[ShapeRun]) -> Option<Self> {
        let line = |of: &dyn Fn(&ShapeRun) -> (Option<usize>, u64)| {
            let points: Option<Vec<_>> = runs
                .iter()
                .map(|run| {
                    let (layers, params) = of(run);
                    Some((layers? as f64, params as f64))
                })
                .collect();
            let points = points?;
            let line = Line::through(&points).filter(|line| line.slope > 0.0 && line.at(1.0) > 0.0)?;
            points
                .iter()
                .all(|(layers, params)| (line.at(*layers) - params).abs() < 1e-3 * params)
                .then_some(line)
        };
        let encoder = line(&|run| (run.encoder_layers, run.encoder_params))?;
        let decoder = line(&|run| (run.decoder_layers, run.decoder_params))?;
        Some(Self { encoder, decoder })
    }
}

/// What a recording takes: `t = t_enc(N_e) + t_listen(N_d) + U (b + a N_d)`, with lines through what was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latency {
    /// Length of the recording.
    pub audio_secs: f64,
    /// Seconds of features and encoder by N_e.
    pub encoder_secs: Line,
    /// Seconds by N_d in which the decoder takes in, once, what was heard.
    pub listen_secs: Line,
    /// Seconds of a token by N_d; what is fixed (embedding, logits, search) no depth makes smaller.
    pub token_secs: Line,
}

impl Latency {
    /// Lines through the runs that were timed; None where there are none.
    ///
    /// # Errors
    /// Times of recordings of several lengths, too few sizes, times that do not grow with size.
    pub(super) fn of(runs: &[ShapeRun]) -> Result<Option<Self>, Error> {
        let timed: Vec<&ShapeRun> =
            runs.iter().filter(|run| run.encoder_secs.is_some() || run.token_secs.is_some()).collect();
        let Some(first) = timed.first() else { return Ok(None) };
        let Some(audio_secs) = first.audio_secs.filter(|secs| secs.is_finite() && *secs > 0.0) else {
            return Err(Error::Latency(
                "rows with times need `audio_secs`, the recording's length".to_owned(),
            ));
        };
        if let Some(other) = timed.iter().find(|run| run.audio_secs != Some(audio_secs)) {
            let other = other.audio_secs.map_or_else(|| "none".to_owned(), |secs| format!("{secs} s"));
            return Err(Error::Latency(format!(
                "rows were timed by recordings of {audio_secs} s and of {other}; time all by the same"
            )));
        }
        let line = |what: &str, points: Vec<(f64, Option<f64>)>| {
            let points: Vec<_> = points.into_iter().filter_map(|(x, y)| Some((x, y?))).collect();
            let line = Line::through(&points).filter(|line| line.slope.is_finite());
            line.ok_or_else(|| {
                Error::Latency(format!("`{what}` is known of fewer than two sizes; time two or more"))
            })
        };
        let points = |x: &dyn Fn(&ShapeRun) -> u64, y: &dyn Fn(&ShapeRun) -> Option<f64>| {
            timed.iter().map(|run| (x(run) as f64, y(run))).collect::<Vec<_>>()
        };
        let grows = |what: &str, line: Line| {
            if line.slope > 0.0 {
                return Ok(line);
            }
            Err(Error::Latency(format!(
                "`{what}` does not grow with the size ({:.3e} s for a million parameters): the models are too small to tell, or the machine was busy; measure again, with more runs (--bench-runs) or wider models",
                1e6 * line.slope
            )))
        };
        let encoder_secs = grows(
            "encoder_secs",
            line("encoder_secs", points(&|run| run.encoder_params, &|run| run.encoder_secs))?,
        )?;
        let token_secs = grows(
            "token_secs",
            line("token_secs", points(&|run| run.decoder_params, &|run| run.token_secs))?,
        )?;
        let listen = points(&|run| run.decoder_params, &|run| run.listen_secs);
        let listen_secs = if listen.iter().any(|(_, secs)| secs.is_some()) {
            line("listen_secs", listen)?
        } else {
            Line::default()
        };
        Ok(Some(Self { audio_secs, encoder_secs, listen_secs, token_secs }))
    }

    /// Seconds of a recording in which `n_tokens` are written.
    pub fn secs(&self, [encoder_params, decoder_params]: [f64; 2], n_tokens: f64) -> f64 {
        self.encoder_secs.at(encoder_params)
            + self.listen_secs.at(decoder_params)
            + n_tokens * self.token_secs.at(decoder_params)
    }
}

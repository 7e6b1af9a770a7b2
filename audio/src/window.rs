//! Windows for models that read a bounded stretch at a time.

use crate::{Error, Span, Waveform};

/// A stretch of a recording to be given to a model in one piece, seconds from the recording's start.
pub type Window = Span;

/// How loud (or how likely to be speech) each frame is; where it is low is where a cut hurts least.
#[derive(Debug, Clone, Copy)]
pub struct Profile<'a> {
    /// One value per frame, any unit: [`energy_profile`], or [`Vad::probabilities`](crate::Vad::probabilities).
    pub values: &'a [f32],
    /// Length of a frame, seconds.
    pub frame_secs: f64,
}

/// Shortest window limit that is accepted, seconds.
const MIN_WINDOW_SECS: f64 = 0.1;

/// Mean square of each frame of `frame_samples`, the last one partial.
///
/// # Panics
/// When `frame_samples` is 0.
pub fn energy_profile(waveform: &Waveform, frame_samples: usize) -> Vec<f32> {
    let mean_square =
        |frame: &[f32]| frame.iter().map(|sample| sample * sample).sum::<f32>() / frame.len() as f32;
    waveform.samples.chunks(frame_samples).map(mean_square).collect()
}

/// Packs spans of speech into windows of at most `max_window_secs`.
///
/// The windows are in order, do not overlap and cover every span (clipped to the recording). They begin and end
/// where spans do, so the silence between windows belongs to none; only a span longer than the limit is cut
/// inside, at the quietest frame of `profile` in the second half of what the limit allows, or at the limit where
/// the profile is empty.
///
/// # Errors
/// [`Error::BadOption`] when `max_window_secs` is below 0.1 s or not a number, or `profile.frame_secs` is not
/// positive.
pub fn cut_at_silences(
    spans: &[Span],
    duration_secs: f64,
    max_window_secs: f64,
    profile: &Profile<'_>,
) -> Result<Vec<Window>, Error> {
    if max_window_secs.is_nan() || max_window_secs < MIN_WINDOW_SECS {
        let reason = format!("must be at least {MIN_WINDOW_SECS} s");
        return Err(Error::BadOption { field: "max_window_secs", reason });
    }
    if !(profile.frame_secs.is_finite() && profile.frame_secs > 0.0) {
        return Err(Error::BadOption { field: "frame_secs", reason: "must be positive".into() });
    }
    let mut windows: Vec<Window> = Vec::new();
    for mut span in in_order(spans, duration_secs) {
        if let Some(window) = windows.last_mut()
            && span.end_secs - window.start_secs <= max_window_secs
        {
            window.end_secs = span.end_secs;
            continue;
        }
        while span.duration_secs() > max_window_secs {
            let cut_secs =
                quietest(profile, span.start_secs + max_window_secs / 2.0, span.start_secs + max_window_secs);
            windows.push(Span { start_secs: span.start_secs, end_secs: cut_secs });
            span.start_secs = cut_secs;
        }
        windows.push(span);
    }
    Ok(windows)
}

/// The spans sorted, clipped to the recording, overlaps merged, empty ones left out.
fn in_order(spans: &[Span], duration_secs: f64) -> Vec<Span> {
    let clip = |secs: f64| secs.clamp(0.0, duration_secs.max(0.0));
    let mut clipped: Vec<Span> = spans
        .iter()
        .map(|span| Span { start_secs: clip(span.start_secs), end_secs: clip(span.end_secs) })
        .filter(|span| span.start_secs < span.end_secs)
        .collect();
    clipped.sort_by(|a, b| a.start_secs.total_cmp(&b.start_secs));
    let mut merged: Vec<Span> = Vec::with_capacity(clipped.len());
    for span in clipped {
        match merged.last_mut() {
            Some(last) if span.start_secs <= last.end_secs => {
                last.end_secs = last.end_secs.max(span.end_secs);
            }
            _ => merged.push(span),
        }
    }
    merged
}

/// The middle of the lowest frame that lies within `from_secs .. to_secs`; of equals the last, for longer windows.
fn quietest(profile: &Profile<'_>, from_secs: f64, to_secs: f64) -> f64 {
    let first = (from_secs / profile.frame_secs).ceil() as usize;
    let end = ((to_secs / profile.frame_secs).floor() as usize).min(profile.values.len());
    let lowest = (first..end).rev().min_by(|&a, &b| profile.values[a].total_cmp(&profile.values[b]));
    lowest.map_or(to_secs, |frame| ((frame as f64 + 0.5) * profile.frame_secs).clamp(from_secs, to_secs))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn span(start_secs: f64, end_secs: f64) -> Span {
        Span { start_secs, end_secs }
    }

    #[test]
    fn packs_spans_and_cuts_in_the_silence_between() {
        let spans = [span(1.0, 5.0), span(6.0, 9.0), span(12.0, 20.0), span(25.0, 29.0)];
        let flat = Profile { values: &[], frame_secs: 0.1 };
        let windows = cut_at_silences(&spans, 30.0, 10.0, &flat).unwrap();
        assert_eq!(windows, [span(1.0, 9.0), span(12.0, 20.0), span(25.0, 29.0)]);
    }

    #[test]
    fn a_long_span_is_cut_where_it_is_quietest() {
        let mut values = vec![1.0_f32; 300];
        values[80] = 0.1;
        values[20] = 0.0; // quieter, but in the first half of the window
        let profile = Profile { values: &values, frame_secs: 0.1 };
        let windows = cut_at_silences(&[span(0.0, 15.0)], 15.0, 10.0, &profile).unwrap();
        assert_eq!(windows, [span(0.0, 8.05), span(8.05, 15.0)]);
    }

    #[test]
    fn bad_limits_are_refused() {
        let profile = Profile { values: &[], frame_secs: 0.1 };
        assert!(cut_at_silences(&[], 1.0, f64::NAN, &profile).is_err());
        assert!(cut_at_silences(&[], 1.0, 0.0, &profile).is_err());
        assert!(cut_at_silences(&[], 1.0, 1.0, &Profile { frame_secs: 0.0, ..profile }).is_err());
        assert_eq!(cut_at_silences(&[span(f64::NAN, 1.0)], 1.0, 1.0, &profile).unwrap(), []);
    }

    proptest! {
        #[test]
        fn windows_cover_all_speech_in_order_within_the_limit(
            edges in prop::collection::vec((0.0..100.0_f64, 0.0..40.0_f64), 0..20),
            values in prop::collection::vec(0.0..1.0_f32, 0..2_000),
            max_window_secs in 0.5..30.0_f64,
            duration_secs in 0.0..120.0_f64,
        ) {
            let spans: Vec<Span> = edges.iter().map(|(start, length)| span(*start, start + length)).collect();
            let profile = Profile { values: &values, frame_secs: 0.05 };
            let windows = cut_at_silences(&spans, duration_secs, max_window_secs, &profile).unwrap();
            for window in &windows {
                prop_assert!(window.start_secs < window.end_secs);
                prop_assert!(window.duration_secs() <= max_window_secs + 1e-9);
                prop_assert!(window.start_secs >= 0.0 && window.end_secs <= duration_secs);
            }
            for pair in windows.windows(2) {
                prop_assert!(pair[0].end_secs <= pair[1].start_secs);
            }
            // Every instant of every span, sampled, lies in a window.
            for span in &spans {
                let end_secs = span.end_secs.min(duration_secs);
                for step in 0..50 {
                    let at = span.start_secs + (end_secs - span.start_secs) * (f64::from(step) + 0.5) / 50.0;
                    if span.start_secs < end_secs {
                        prop_assert!(windows.iter().any(|w| w.start_secs <= at && at <= w.end_secs), "{at}");
                    }
                }
            }
        }
    }
}

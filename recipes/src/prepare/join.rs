//! Longer recordings out of short ones, one after the other: for measuring what a model does with longer texts than a corpus has. What
//! training joins it joins anew in each epoch (`[join]`), and writes nothing.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use audio::encode::wav_bytes;
use audio::{DecodeAudio, Waveform};

use crate::Error;
use crate::data::{Cut, read_cut_at};

/// How recordings are joined.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JoinOptions {
    /// Characters that a text has at least, the spaces in it included.
    pub min_chars: usize,
    /// Seconds that a recording lasts at most.
    pub max_secs: f64,
    /// Silence between those that are joined.
    pub pause_secs: f64,
    /// Of what is written, Hz.
    pub sample_rate: u32,
}

/// Joins cuts of the same speaker, in their order and no more of them than it takes, and writes each as a WAV file `NAME-0001.wav`
/// into `folder`. Also says how many of the cuts are left over: their texts are too short together, or they last too long.
///
/// # Errors
/// Recordings that cannot be read, a disk that is full.
pub fn join_cuts(
    cuts: &[Cut],
    options: &JoinOptions,
    folder: &Path,
    name: &str,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<(Vec<Cut>, usize), Error> {
    fs::create_dir_all(folder).map_err(|error| Error::file(folder, error))?;
    let groups = groups(cuts, options);
    let n_left = cuts.len() - groups.iter().map(Vec::len).sum::<usize>();
    let mut joined = Vec::with_capacity(groups.len());
    for (index, group) in groups.iter().enumerate() {
        progress(index, groups.len());
        let mut samples = Vec::new();
        for (place, cut) in group.iter().enumerate() {
            if place > 0 {
                let n_pause = (options.pause_secs * f64::from(options.sample_rate)).round() as usize;
                samples.resize(samples.len() + n_pause, 0.0);
            }
            samples.extend(read_cut_at(&cuts[*cut], options.sample_rate, &DecodeAudio::default())?.samples);
        }
        let waveform = Waveform { samples, sample_rate: options.sample_rate };
        let id = format!("{name}-{:04}", index + 1);
        let path = folder.join(format!("{id}.wav"));
        fs::write(&path, wav_bytes(&waveform)?).map_err(|error| Error::file(&path, error))?;
        let first = &cuts[group[0]];
        joined.push(Cut {
            id: id.into(),
            audio: path.into(),
            start_secs: 0.0,
            duration_secs: waveform.duration_secs(),
            channel: None,
            text: text(cuts, group).into(),
            // What joined texts are translated to nobody says.
            target_text: None,
            target_language: None,
            extra: None,
            ..first.clone()
        });
    }
    Ok((joined, n_left))
}

fn text(cuts: &[Cut], group: &[usize]) -> String {
    let texts: Vec<&str> = group.iter().map(|cut| cuts[*cut].text.trim()).collect();
    let is_unspaced = cuts[group[0]].language.as_deref().is_some_and(models::Tokenizer::is_unspaced);
    texts.join(if is_unspaced { "" } else { " " })
}

/// Which cuts are joined, each group in the order in which its last cut comes.
fn groups(cuts: &[Cut], options: &JoinOptions) -> Vec<Vec<usize>> {
    let mut groups = Vec::new();
    // By speaker and language: what has been gathered so far.
    let mut open: HashMap<(Option<&str>, Option<&str>), Vec<usize>> = HashMap::new();
    for (index, cut) in cuts.iter().enumerate() {
        if cut.text.trim().is_empty() {
            continue;
        }
        let group = open.entry((cut.speaker.as_deref(), cut.language.as_deref())).or_default();
        group.push(index);
        let secs = group.iter().map(|cut| cuts[*cut].duration_secs).sum::<f64>()
            + options.pause_secs * (group.len() - 1) as f64;
        if secs > options.max_secs {
            // Those before it were too short; it may begin another, unless it is too long itself.
            group.clear();
            if cut.duration_secs > options.max_secs {
                continue;
            }
            group.push(index);
        }
        if text(cuts, group).chars().count() >= options.min_chars {
            groups.push(std::mem::take(group));
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str, speaker: &str, duration_secs: f64) -> Cut {
        Cut {
            id: text.into(),
            audio: Path::new("a.wav").into(),
            start_secs: 0.0,
            duration_secs,
            channel: None,
            text: text.into(),
            language: None,
            speaker: Some(speaker.into()),
            target_text: None,
            target_language: None,
            extra: None,
        }
    }

    #[test]
    fn cuts_of_a_speaker_are_joined_until_their_text_is_long_enough() {
        let options = JoinOptions { min_chars: 7, max_secs: 5.0, pause_secs: 0.5, sample_rate: 16_000 };
        let cuts = [
            cut("one", "a", 1.0),
            cut("two", "b", 1.0),
            cut("six", "a", 1.0),
            cut("seventy", "b", 4.5),
            cut("", "a", 1.0),
            cut("far too long", "a", 6.0),
            cut("four", "a", 1.0),
            cut("five", "a", 1.0),
            cut("nine", "a", 1.0),
        ];
        // The second and the fourth would be too long together, and the fourth is long enough alone; the last has none to go with.
        assert_eq!(groups(&cuts, &options), [vec![0, 2], vec![3], vec![6, 7]]);
        assert_eq!(text(&cuts, &[0, 2]), "one six");
    }
}

//! A model that takes recordings as long as they are computes nothing else, and gives in a batch what it gives alone.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use audio::Waveform;
use candle_core::{Device, Tensor};
use models::params::Params;
use models::{
    Bundle, DecodeOptions, NewVocabulary, NewWhisper, SpeechModel, TextUnit, Timestamps, Transcriber,
    WeightDtype, write_weights,
};

use crate::support::{difference, fixture, transcriber};

const WINDOW_SECS: f64 = 2.0;

fn new() -> NewWhisper {
    NewWhisper {
        name: "variable".to_owned(),
        d_model: 32,
        n_heads: 2,
        encoder_layers: 2,
        decoder_layers: 1,
        n_mels: 80,
        max_target_positions: 24,
        variable_length: true,
        beam_size: 1,
        vocabulary: NewVocabulary {
            n_text_tokens: 260,
            unit: TextUnit::Pieces,
            languages: Vec::new(),
            window_secs: WINDOW_SECS,
        },
    }
}

/// A model with random weights, written as a bundle and opened again.
fn model() -> anyhow::Result<(Transcriber, SpeechModel)> {
    let description = new().describe(&[" one two".to_owned(), " two one".to_owned()])?;
    let params = Params::seeded(1, &Device::Cpu);
    let whisper = SpeechModel::load(&params, description.architecture())?;
    let folder = tempfile::tempdir()?;
    description.source().copy_description(folder.path())?;
    let vars = params.vars().into_iter().map(|(name, var)| (name, var.as_detached_tensor()));
    let tensors: BTreeMap<_, _> = vars.chain(params.buffers()).collect();
    write_weights(folder.path(), &tensors, WeightDtype::F32)?;
    Ok((Transcriber::load(Bundle::open(folder.path())?, &Device::Cpu)?, whisper))
}

fn tone(n_samples: usize) -> Waveform {
    Waveform { samples: (0..n_samples).map(|t| (t as f32 * 0.05).sin() * 0.3).collect(), sample_rate: 16_000 }
}

#[test]
fn only_the_frames_that_there_are_are_encoded() -> anyhow::Result<()> {
    let (transcriber, _) = model()?;
    for (n_samples, n_frames) in [(0, 1), (1, 1), (160, 1), (479, 2), (480, 3), (16_000, 100), (32_000, 200)]
    {
        let features = transcriber.window_features(&tone(n_samples).samples);
        ensure!(features.n_frames == n_frames, "{n_samples} samples: {} frames", features.n_frames);
        let encoded = transcriber.encode(features)?;
        ensure!(
            encoded.dim(0)? == transcriber.model().encoder.n_positions(n_frames),
            "{n_samples}: {encoded:?}"
        );
    }
    ensure!((transcriber.padded_secs(0.7), transcriber.padded_secs(5.0)) == (0.7, 5.0));
    // Stock checkpoints hear a window.
    let stock = self::transcriber(&fixture("whisper-80"))?;
    ensure!(stock.window_features(&[0.1; 100]).n_frames == 3000 && stock.padded_secs(0.7) == 30.0);
    Ok(())
}

#[test]
fn recordings_of_any_length_are_transcribed_with_all_kinds_of_times() -> anyhow::Result<()> {
    let (transcriber, _) = model()?;
    for n_samples in [0, 1, 100, 161, 4_801, 31_999, 32_001, 100_000] {
        for timestamps in [Timestamps::None, Timestamps::Segment, Timestamps::Word] {
            for vad in [None, Some(false), Some(true)] {
                let options = DecodeOptions { timestamps, vad, fallback: false, ..DecodeOptions::default() };
                let transcript = transcriber
                    .transcribe(tone(n_samples), &options, &mut |_| {})
                    .with_context(|| format!("{n_samples} samples, {timestamps:?}, {vad:?}"))?;
                let end_secs = n_samples as f64 / 16_000.0 + 0.02;
                ensure!(transcript.segments.iter().all(|segment| segment.end_secs <= end_secs));
            }
        }
    }
    Ok(())
}

#[test]
fn rows_of_a_padded_batch_are_what_they_are_alone() -> anyhow::Result<()> {
    let (transcriber, whisper) = model()?;
    let features: Vec<_> = [9_000, 31_999, 161, 16_123]
        .into_iter()
        .map(|n_samples| transcriber.window_features(&tone(n_samples).samples))
        .collect();
    let longest = features.iter().map(|features| features.n_frames).max().context("some")?;
    let rows = features.iter().map(|features| {
        let row = Tensor::from_slice(&features.data, (80, features.n_frames), &Device::Cpu)?;
        row.pad_with_zeros(1, 0, longest - features.n_frames)
    });
    let mel = Tensor::stack(&rows.collect::<candle_core::Result<Vec<_>>>()?, 0)?;
    let n_frames: Vec<usize> = features.iter().map(|features| features.n_frames).collect();
    let together = whisper.encoder.forward_padded(&mel, &n_frames)?;
    let ids = Tensor::from_vec(vec![3u32; 4 * 5], (4, 5), &Device::Cpu)?;
    let n_positions: Vec<usize> = n_frames.iter().map(|n| whisper.encoder.n_positions(*n)).collect();
    let said = whisper.decoder()?.forward_padded(&ids, &together, &n_positions)?;
    for (row, features) in features.into_iter().enumerate() {
        let n = n_positions[row];
        let alone = transcriber.encode(features)?;
        let worst = difference(&together.get(row)?.narrow(0, 0, n)?, &alone)?;
        ensure!(worst < 1e-4, "encoder, row {row}: {worst}");
        let alone = whisper.decoder()?.forward(&ids.narrow(0, row, 1)?, &alone.unsqueeze(0)?)?;
        let worst = difference(&said.get(row)?, &alone.squeeze(0)?)?;
        ensure!(worst < 1e-4, "decoder, row {row}: {worst}");
    }
    ensure!(whisper.encoder.forward_padded(&mel, &[1, 2]).is_err());
    ensure!(whisper.encoder.forward_padded(&mel, &[longest + 1; 4]).is_err());
    Ok(())
}

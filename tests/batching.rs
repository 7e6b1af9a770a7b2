//! What a row computes does not depend on the rows beside it, nor on how its tokens are cut into steps.

use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use models::whisper::StepRow;

use crate::parity::features;
use crate::support::{difference, fixture, transcriber};

#[test]
fn steps_with_a_cache_equal_the_whole_sequence() -> Result<()> {
    let transcriber = transcriber(&fixture("whisper-80"))?;
    let decoder = &transcriber.whisper().decoder;
    let config = &transcriber.whisper().config;
    let encoded = transcriber.encode(features(1, config.num_mel_bins, config.max_source_frames()))?;
    let cross = transcriber.listen(&encoded)?;
    let ids = [301u32, 308, 311, 315, 40, 258, 17, 270, 75];
    let whole = decoder
        .forward(&Tensor::new(&ids, &Device::Cpu)?.unsqueeze(0)?, &encoded.unsqueeze(0)?)?
        .squeeze(0)?;
    let mut cache = decoder.row_cache(ids.len())?;
    let mut steps = Vec::new();
    for tokens in [&ids[..4], &ids[4..5], &ids[5..8], &ids[8..]] {
        steps.push(decoder.step(&mut [StepRow { tokens, cache: &mut cache, cross: &cross }])?);
    }
    let worst = difference(&Tensor::cat(&steps, 0)?, &whole)?;
    ensure!(worst < 1e-5, "{worst}");
    Ok(())
}

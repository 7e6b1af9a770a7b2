//! Which language is spoken, by the probability of the first token after the start
//! (openai/whisper `decoding.py: detect_language`).

use super::rules::check_finite;
use crate::Error;
use crate::kernels::log_sum_exp;
use crate::{CrossCache, Decoder, StepRow};

/// Probabilities of `languages` (name, token id) after the token `start` for one window, the most probable first.
///
/// # Errors
/// When a tensor operation fails or gives numbers that are not finite.
pub fn detect_language(
    decoder: &Decoder,
    start: u32,
    cross: &CrossCache,
    languages: &[(String, u32)],
) -> Result<Vec<(String, f32)>, Error> {
    let mut cache = decoder.row_cache(1)?;
    let hidden = decoder.step(&mut [StepRow { tokens: &[start], cache: &mut cache, cross }])?;
    let logits = decoder.logits(&hidden)?.flatten_all()?.to_vec1::<f32>()?;
    check_finite("logits", &logits)?;
    let named: Vec<(String, f32)> =
        languages.iter().filter_map(|(name, id)| Some((name.clone(), *logits.get(*id as usize)?))).collect();
    let total = log_sum_exp(&named.iter().map(|(_, logit)| *logit).collect::<Vec<_>>());
    let mut probabilities: Vec<_> =
        named.into_iter().map(|(name, logit)| (name, (logit - total).exp())).collect();
    probabilities.sort_by(|a, b| b.1.total_cmp(&a.1));
    Ok(probabilities)
}

//! What a finished run says of its shape: parameters of its bundle, and the last figures of its log.

use std::path::Path;

use models::Bundle;

use crate::Error;
use crate::metrics_log::{JSONL_NAME, read_scalars};
use crate::task::Figures;

/// Statistics of batch norm, which no gradient moves.
const STATISTICS: [&str; 3] = ["running_mean", "running_var", "num_batches_tracked"];

/// Parameters of encoder and decoder as they lie in a bundle, without embeddings of tokens and positions: N_e and N_d. What comes
/// before the encoder's blocks (convolutions) counts, as do norms.
pub fn count_params(bundle: &Bundle) -> (u64, u64) {
    let (encoder, _) = bundle.architecture().encoder_scopes();
    let of_stack = |scope: &str| {
        let mut n_params = 0;
        for (name, shape, _) in bundle.weights().tensors() {
            let Some(name) = name.strip_prefix(scope).and_then(|name| name.strip_prefix('.')) else {
                continue;
            };
            let is_embedding = name.starts_with("embed_");
            let is_statistic = STATISTICS.iter().any(|statistic| name.ends_with(statistic));
            if !is_embedding && !is_statistic {
                n_params += shape.iter().product::<usize>() as u64;
            }
        }
        n_params
    };
    (of_stack(encoder), of_stack("model.decoder"))
}

/// The last evaluation of a run, by figure, without the prefix `dev/` that they have in its log; and after which update it was.
///
/// # Errors
/// A log that cannot be read or holds no evaluation.
pub fn last_figures(run: &Path) -> Result<(u64, Figures), Error> {
    let log = run.join(JSONL_NAME);
    let scalars = read_scalars(&log)?;
    let held_out = || scalars.iter().filter_map(|scalar| Some((scalar, scalar.name.strip_prefix("dev/")?)));
    let step = held_out().map(|(scalar, _)| scalar.step).max().ok_or_else(|| {
        Error::file(
            &log,
            "holds no evaluation: name held-out speech (data.dev), by which models are compared",
        )
    })?;
    let last = held_out().filter(|(scalar, _)| scalar.step == step);
    Ok((step, last.map(|(scalar, name)| (name.to_owned(), scalar.value)).collect()))
}

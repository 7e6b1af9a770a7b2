//! Optimal transport between rows of states, as a loss: how far what is heard is from what is written.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp2, DType, Device, Layout, Shape, Tensor};

use super::storage::{floats, tensor};
use crate::kernels::{self, PairCost, PointSets, Transport, TransportPass};

/// What of two batches of rows is compared.
#[derive(Debug, Clone, PartialEq)]
pub struct TransportRows {
    /// States of each row of the first batch; those behind them are padding.
    pub lengths: Vec<usize>,
    /// States of each row of the second.
    pub other_lengths: Vec<usize>,
    /// What each pair counts: 1 for a sum over utterances, 0 for one that is to be ignored.
    pub weights: Vec<f32>,
}

impl TransportRows {
    fn check(&self, x: &Shape, y: &Shape) -> candle_core::Result<()> {
        let ((b, s, d), (other_b, t, other_d)) = (x.dims3()?, y.dims3()?);
        let Self { lengths, other_lengths, weights } = self;
        let n_rows = [lengths.len(), other_lengths.len(), weights.len(), other_b];
        if n_rows != [b; 4] || d != other_d || d == 0 {
            candle_core::bail!("transport: {n_rows:?} lengths, weights and rows for {x:?} and {y:?}")
        }
        if lengths.iter().any(|n| *n > s) || other_lengths.iter().any(|n| *n > t) {
            candle_core::bail!("transport: lengths {lengths:?} and {other_lengths:?} for {s} and {t} states")
        }
        Ok(())
    }
}

/// The weighted sum of what it costs to move the states of each row of x (B, S, D) onto those of the same row of y (B, T, D), all
/// states of a row weighing the same, and what was found of each pair. Differentiable in both; the gradient of padding and of rows
/// that count nothing is exactly 0. Where a row has no states, it costs nothing. Computed in f32 and f64 on the CPU, whatever x and y
/// are in and wherever they are (Le et al., arXiv 2301.11716, section 3.2; gradients as in [`kernels::optimal_transport`]).
///
/// # Errors
/// Lengths that do not fit, options that mean nothing, states that are no finite numbers.
pub fn optimal_transport(
    x: &Tensor,
    y: &Tensor,
    rows: &TransportRows,
    transport: Transport,
) -> candle_core::Result<(Tensor, Vec<PairCost>)> {
    rows.check(x.shape(), y.shape())?;
    check(transport)?;
    let here = |x: &Tensor| x.to_dtype(DType::F32)?.to_device(&Device::Cpu)?.contiguous();
    let pairs = std::sync::Arc::new(OnceLock::new());
    let op = Op { rows: rows.clone(), transport, pairs: pairs.clone(), gradients: OnceLock::new() };
    let sum = here(x)?.apply_op2(&here(y)?, op)?.to_device(x.device())?;
    Ok((sum, pairs.get().cloned().unwrap_or_default()))
}

fn check(transport: Transport) -> candle_core::Result<()> {
    let Transport { blur, scaling, reach, position_weight, .. } = transport;
    let is_positive = |x: f64| x > 0.0 && x.is_finite();
    if !is_positive(blur) || reach.is_some_and(|reach| !is_positive(reach)) {
        candle_core::bail!("transport: a blur of {blur} or a reach of {reach:?} is no length above 0")
    }
    if !(scaling > 0.0 && scaling < 1.0) {
        candle_core::bail!("transport: a scaling of {scaling} does not lie between 0 and 1")
    }
    if !(position_weight >= 0.0 && position_weight.is_finite()) {
        candle_core::bail!("transport: a position weight of {position_weight} is no number from 0 on")
    }
    Ok(())
}

struct Op {
    rows: TransportRows,
    transport: Transport,
    pairs: std::sync::Arc<OnceLock<Vec<PairCost>>>,
    gradients: OnceLock<[Vec<f32>; 2]>,
}

impl Op {
    /// Lengths of rows that count; the others have none.
    fn counted(&self, lengths: &[usize]) -> Vec<usize> {
        let rows = lengths.iter().zip(&self.rows.weights);
        rows.map(|(n, weight)| if *weight == 0.0 { 0 } else { *n }).collect()
    }
}

impl CustomOp2 for Op {
    fn name(&self) -> &'static str {
        "optimal-transport"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        y: &CpuStorage,
        y_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (_, s, d) = x_layout.shape().dims3()?;
        let (_, t, _) = y_layout.shape().dims3()?;
        let lengths = [self.counted(&self.rows.lengths), self.counted(&self.rows.other_lengths)];
        let (x, y) = (floats(x, x_layout)?, floats(y, y_layout)?);
        for (points, step, lengths, others) in
            [(x, s, &lengths[0], &lengths[1]), (y, t, &lengths[1], &lengths[0])]
        {
            for (row, (n, other)) in lengths.iter().zip(others).enumerate() {
                if *other > 0 && !kernels::are_finite(&points[row * step * d..][..n * d]) {
                    candle_core::bail!("transport: row {row} has states that are no finite numbers")
                }
            }
        }
        let sets = |points, lengths| PointSets { points, lengths, weights: None };
        let pass = kernels::optimal_transport(sets(x, &lengths[0]), sets(y, &lengths[1]), d, self.transport);
        let TransportPass { pairs, mut gradients } = pass;
        if let Some(row) = pairs.iter().position(|pair| !pair.value.is_finite()) {
            candle_core::bail!(
                "transport: what row {row} costs is no finite number; its states are too far apart"
            )
        }
        for (gradients, step) in gradients.iter_mut().zip([s, t]) {
            for (row, weight) in gradients.chunks_mut((step * d).max(1)).zip(&self.rows.weights) {
                row.iter_mut().for_each(|gradient| *gradient *= weight);
            }
        }
        let sum: f64 =
            pairs.iter().zip(&self.rows.weights).map(|(pair, weight)| pair.value * f64::from(*weight)).sum();
        self.pairs.get_or_init(|| pairs);
        self.gradients.get_or_init(|| gradients);
        Ok((CpuStorage::F32(vec![sum as f32]), Shape::from(())))
    }

    fn bwd(
        &self,
        x: &Tensor,
        y: &Tensor,
        _sum: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let Some([dx, dy]) = self.gradients.get() else {
            candle_core::bail!("transport: no forward pass yet")
        };
        let scale = f64::from(gradient.to_scalar::<f32>()?);
        let scaled = |values: &[f32], like: &Tensor| tensor(values.to_vec(), like.shape())? * scale;
        Ok((Some(scaled(dx, x)?), Some(scaled(dy, y)?)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use candle_core::Var;

    use super::*;
    use crate::kernels::Distance;
    use crate::nn::test_support::{assert_close, noise};

    fn fixture() -> candle_core::Result<HashMap<String, Tensor>> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/optimal-transport.safetensors");
        candle_core::safetensors::load(path, &Device::Cpu)
    }

    fn row(x: &Tensor, y: &Tensor) -> candle_core::Result<TransportRows> {
        Ok(TransportRows { lengths: vec![x.dim(1)?], other_lengths: vec![y.dim(1)?], weights: vec![1.0] })
    }

    /// `tests/oracle/optimal_transport.py`.
    #[test]
    fn values_and_gradients_are_geomloss() -> candle_core::Result<()> {
        let fixture = fixture()?;
        let names: Vec<_> = fixture.keys().filter_map(|key| key.strip_suffix(".options")).collect();
        assert_eq!(names.len(), 10);
        for name in names {
            let get = |key: &str| &fixture[&format!("{name}.{key}")];
            let options = get("options").to_vec1::<f32>()?;
            let [p, blur, scaling, reach, debiased, position_weight] = options[..] else {
                candle_core::bail!("options")
            };
            let exact = |x: f32| x.to_string().parse::<f64>().unwrap_or_default();
            let transport = Transport {
                distance: if p == 1.0 { Distance::Euclidean } else { Distance::HalfSquared },
                blur: exact(blur),
                scaling: exact(scaling),
                reach: (reach > 0.0).then_some(exact(reach)),
                debiased: debiased == 1.0,
                position_weight: exact(position_weight),
            };
            let numbers = |key: &str| get(key).flatten_all()?.to_vec1::<f32>();
            let (x, y, a, b) = (numbers("x")?, numbers("y")?, numbers("a")?, numbers("b")?);
            let width = get("x").dim(1)?;
            let lengths = [[a.len()], [b.len()]];
            let pass = kernels::optimal_transport(
                PointSets { points: &x, lengths: &lengths[0], weights: Some(&a) },
                PointSets { points: &y, lengths: &lengths[1], weights: Some(&b) },
                width,
                transport,
            );
            let (found, expected) = (pass.pairs[0].value, f64::from(get("value").to_scalar::<f32>()?));
            assert!(
                (found - expected).abs() < 2e-5 * expected.abs().max(1.0),
                "{name}: {found}, not {expected}"
            );
            let of = |values: &[f32], like: &Tensor| tensor(values.to_vec(), like.shape());
            // Products of many numbers are rounded, and costs are divided by an e of a 400th.
            let tolerance = if width > 16 { 5e-4 } else { 2e-5 };
            for (gradient, like, expected) in [(0, "x", "dx"), (1, "y", "dy")] {
                assert_close(&of(&pass.gradients[gradient], get(like))?, get(expected), tolerance)
                    .map_err(|error| candle_core::Error::Msg(format!("{name}: {error}")))?;
            }
        }
        Ok(())
    }

    #[test]
    fn once_it_has_converged_it_is_pots() -> candle_core::Result<()> {
        let fixture = fixture()?;
        let [x, y] = ["x", "y"].map(|key| fixture[&format!("pot.{key}")].unsqueeze(0));
        let (x, y) = (x?, y?);
        let number = |key: &str| -> candle_core::Result<f64> {
            let number = fixture[&format!("pot.{key}")].to_dtype(DType::F64)?;
            number.to_scalar()
        };
        let (blur, debiased) = (number("epsilon")?.sqrt(), false);
        let transport = Transport { blur, scaling: 0.9999, debiased, ..Transport::default() };
        let (sum, pairs) = optimal_transport(&x, &y, &row(&x, &y)?, transport)?;
        assert!((f64::from(sum.to_scalar::<f32>()?) - number("value")?).abs() < 1e-5);
        let (found, expected) = (pairs[0].feature_cost, number("cost")?);
        assert!((found - expected).abs() < 5e-4 && pairs[0].position_cost == 0.0, "{found}, not {expected}");
        Ok(())
    }

    #[test]
    fn rows_are_summed_by_weight_and_have_their_gradients() -> candle_core::Result<()> {
        let (x, y) = (Var::from_tensor(&noise((3, 6, 8), 1)?)?, Var::from_tensor(&noise((3, 4, 8), 2)?)?);
        let rows = TransportRows {
            lengths: vec![6, 3, 5],
            other_lengths: vec![4, 4, 1],
            weights: vec![1.0, 0.0, 0.5],
        };
        let transport = Transport { position_weight: 1.0, ..Transport::default() };
        let (sum, pairs) = optimal_transport(&x, &y, &rows, transport)?;
        let expected = pairs[0].value + 0.5 * pairs[2].value;
        assert!(
            (f64::from(sum.to_scalar::<f32>()?) - expected).abs() < 1e-5 && pairs[1] == PairCost::default()
        );
        let gradients = (sum * 2.0)?.backward()?;
        for (var, lengths) in [(&x, [6, 0, 5]), (&y, [4, 0, 1])] {
            let gradient =
                gradients.get(var).ok_or_else(|| candle_core::Error::Msg("no gradient".to_owned()))?;
            for (row, n) in lengths.into_iter().enumerate() {
                for (place, state) in gradient.get(row)?.to_vec2::<f32>()?.iter().enumerate() {
                    let is_there = state.iter().any(|x| *x != 0.0);
                    assert_eq!(is_there, place < n, "row {row}, place {place}");
                }
            }
        }
        // The same in half of the digits, which are computed in all of them.
        let coarse = x.to_dtype(DType::BF16)?;
        let (ours, _) = optimal_transport(&coarse, &y, &rows, transport)?;
        let (exact, _) = optimal_transport(&coarse.to_dtype(DType::F32)?, &y, &rows, transport)?;
        assert_eq!(ours.to_scalar::<f32>()?, exact.to_scalar::<f32>()?);
        Ok(())
    }

    #[test]
    fn what_means_nothing_is_refused() -> candle_core::Result<()> {
        let (x, y) = (noise((1, 3, 2), 1)?, noise((1, 2, 2), 2)?);
        let rows = row(&x, &y)?;
        let usual = Transport::default();
        for transport in [
            Transport { blur: 0.0, ..usual },
            Transport { blur: f64::NAN, ..usual },
            Transport { scaling: 1.0, ..usual },
            Transport { scaling: 0.0, ..usual },
            Transport { reach: Some(-1.0), ..usual },
            Transport { position_weight: f64::INFINITY, ..usual },
        ] {
            assert!(optimal_transport(&x, &y, &rows, transport).is_err(), "{transport:?}");
        }
        let broken = (&x * f64::NAN)?;
        let refused = optimal_transport(&broken, &y, &rows, usual).err().map(|error| error.to_string());
        assert!(refused.is_some_and(|message| message.contains("row 0")));
        // Nothing is moved onto them, so nobody looks.
        let nobody = TransportRows { other_lengths: vec![0], ..rows.clone() };
        assert_eq!(optimal_transport(&broken, &y, &nobody, usual)?.0.to_scalar::<f32>()?, 0.0);
        assert!(optimal_transport(&(&x * 1e25)?, &y, &rows, usual).is_err());
        let longer = TransportRows { lengths: vec![4], ..rows.clone() };
        assert!(optimal_transport(&x, &y, &longer, usual).is_err());
        let other = noise((1, 2, 3), 2)?;
        assert!(optimal_transport(&x, &other, &rows, usual).is_err());
        Ok(())
    }
}

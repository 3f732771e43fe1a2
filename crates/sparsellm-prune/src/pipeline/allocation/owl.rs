//! Allocates a sparsity to each decoder layer, by OWL (Yin et al., *Outlier Weighed Layerwise
//! Sparsity*, ICML 2024).

use crate::pipeline::{calibration::Calibration, plan::Plan, statistics::SquaredNorms};
use rayon::prelude::*;
use sparsellm_base::{Event, Observer, Result};
use sparsellm_model::{Positions, for_each_chunk};
use sparsellm_tensor::Matrix;
use sparsellm_tensor::profile::{Phase, phase};
use std::ops::Range;

/// OWL's M: a weight is an outlier if its Wanda score exceeds its linear's mean score by this
/// factor.
const OUTLIER: f64 = 5.0;
/// Each layer keeps at least this fraction of the weights that it would keep at uniform sparsity,
/// and loses at least this fraction of those that it would lose.
const LEAST: f64 = 0.5;

/// The sparsity of each layer in `range`, for an average of `rho` and a spread of `lambda`. The
/// layers' outliers are counted by running the dense model on `hidden`, this rank's part of the
/// calibration text's embeddings.
pub fn sparsities_of(
    plan: &Plan,
    calibration: &Calibration,
    hidden: &Matrix,
    range: &Range<usize>,
    (rho, lambda): (f64, f64),
    observe: &mut Observer,
) -> Result<Vec<f64>> {
    let mut known = calibration.outliers.borrow_mut();
    if known.len() < range.end {
        let seq_len = calibration.segments.seq_len;
        *known = phase(Phase::Forward, || outliers(plan, hidden, seq_len, range.end, observe))?;
    }
    Ok(sparsities(&known[range.clone()], rho, lambda))
}

/// The share of outliers among the weights of each of the first `layers` layers.
fn outliers(
    plan: &Plan,
    hidden: &Matrix,
    seq_len: usize,
    layers: usize,
    observe: &mut Observer,
) -> Result<Vec<f64>> {
    let mut hidden = hidden.clone();
    let mut outliers = Vec::new();
    for index in 0..layers {
        let block = plan.model.block(index)?;
        let groups = block.groups();
        let mut norms: Vec<SquaredNorms> =
            groups.iter().map(|group| SquaredNorms::new(block.input_width(group))).collect();
        let positions = Positions::segments(seq_len);
        for_each_chunk(&mut hidden, seq_len, |h| {
            block.forward(h, positions, None, |group, x| norms[group].add(x));
        });
        norms.iter_mut().for_each(|norms| plan.ranks.sum(&mut norms.0));
        let (mut found, mut of) = (0, 0);
        let linears = block.linears();
        for (group, norms) in groups.iter().zip(&norms) {
            for linear in group.linears.iter().map(|i| linears[*i]) {
                found += count_outliers(&linear.weight, &norms.0);
                of += linear.weight.data.len();
            }
        }
        outliers.push(found as f64 / of.max(1) as f64);
        observe.notify(Event::Measured { what: "outliers", done: index + 1, of: layers })?;
    }
    Ok(outliers)
}

/// Counts the scores `|W_ij|·‖X_j‖` that are more than [`OUTLIER`] times their mean.
fn count_outliers(w: &Matrix, squared_norms: &[f64]) -> usize {
    let norms: Vec<f64> = squared_norms.iter().map(|n| n.sqrt()).collect();
    let rows = || w.data.par_chunks(w.cols.max(1));
    let scores = |row: &[f32]| -> Vec<f64> {
        row.iter().zip(&norms).map(|(w, n)| f64::from(w.abs()) * n).collect()
    };
    let sums: Vec<f64> = rows().map(|row| scores(row).iter().sum()).collect();
    let threshold = OUTLIER * sums.iter().sum::<f64>() / w.data.len().max(1) as f64;
    rows().map(|row| scores(row).into_iter().filter(|s| *s > threshold).count()).sum()
}

/// With D the layers' shares of outliers, layer l's sparsity
///
/// ```text
/// S_l = ρ − (D̂_l − mean D̂),   D̂_l = 2λ (D_l − min D)/(max D − min D)
/// ```
///
/// so layers with more outliers keep more weights, while the layers together, being equally large,
/// keep as many as at uniform sparsity. λ shrinks if a layer would leave its bounds.
fn sparsities(outliers: &[f64], rho: f64, lambda: f64) -> Vec<f64> {
    let low = outliers.iter().copied().fold(f64::INFINITY, f64::min);
    let high = outliers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let spread = if high > low { 2.0 * lambda / (high - low) } else { 0.0 };
    let mean = outliers.iter().sum::<f64>() / outliers.len().max(1) as f64;
    let shifts: Vec<f64> = outliers.iter().map(|d| spread * (mean - d)).collect();
    let bound = |shift: f64| {
        let room = if shift > 0.0 { 1.0 - rho } else { rho };
        (1.0 - LEAST) * room / shift.abs().max(f64::MIN_POSITIVE)
    };
    let shrink = shifts.iter().map(|s| bound(*s)).fold(1.0, f64::min);
    shifts.iter().map(|s| rho + shrink * s).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparsities_follow_the_outliers() {
        // By hand: D̂ = (0, 0.04, 0.16), mean 1/15.
        let got = sparsities(&[0.0, 0.01, 0.04], 0.7, 0.08);
        for (got, want) in got.iter().zip([0.766_666, 0.726_666, 0.606_666]) {
            assert!((got - want).abs() < 1e-5, "{got} {want}");
        }
        assert_eq!(sparsities(&[0.02, 0.02], 0.7, 0.08), [0.7, 0.7]);
    }

    #[test]
    fn the_total_is_kept_and_no_layer_leaves_its_bounds() {
        let outliers = [0.0, 0.3, 0.01, 0.2, 0.0, 0.05];
        for rho in [0.0, 0.1, 0.5, 0.9, 0.99] {
            for lambda in [0.01, 0.08, 0.5] {
                let got = sparsities(&outliers, rho, lambda);
                let mean = got.iter().sum::<f64>() / 6.0;
                assert!((mean - rho).abs() < 1e-12, "{rho} {lambda}: {mean}");
                let bounds = LEAST * rho..=1.0 - LEAST * (1.0 - rho);
                for (s, d) in got.iter().zip(outliers) {
                    let inside = bounds.start() - 1e-12 <= *s && *s <= bounds.end() + 1e-12;
                    assert!(inside, "{rho} {lambda}: {s}");
                    assert_eq!(*s > rho, d < 0.56 / 6.0 && rho > 0.0, "{rho} {lambda}");
                }
            }
        }
    }

    #[test]
    fn outliers_are_counted_against_their_linear() {
        // Scores 1 (19 times) and 100: mean 5.95, threshold 29.75.
        let mut w = Matrix::new(4, 5, vec![0.5; 20]);
        w.data[7] = -50.0;
        assert_eq!(count_outliers(&w, &[4.0; 5]), 1);
        // A loud feature: scores 1 (15 times) and 40 (5 times): mean 10.75.
        let w = Matrix::new(5, 4, vec![1.0; 20]);
        assert_eq!(count_outliers(&w, &[1.0, 1.0, 1600.0, 1.0]), 0);
    }
}

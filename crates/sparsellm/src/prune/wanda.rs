//! Wanda (Sun et al., *A Simple and Effective Pruning Approach for Large
//! Language Models*, ICLR 2024): weights and activations.

use super::pattern::{Pattern, Scope, Selection};
use crate::linalg::Matrix;
use crate::ranks::Communicator;
use rayon::prelude::*;

/// Prunes this rank's rows `w: [d_out, d_in]` in place. The score is `|W_ij|·‖X_j‖₂`; of each
/// output row the ⌊ρ·d_in⌋ smallest go, or the N smallest of each group of M.
/// `squared_norms: [d_in]` holds `‖X_j‖²`.
pub fn prune(w: &mut Matrix, squared_norms: &[f32], pattern: Pattern, ranks: &dyn Communicator) {
    let norms: Vec<f32> = squared_norms.iter().map(|n| n.sqrt()).collect();
    let mut scores = w.data.clone();
    scores.par_chunks_mut(w.cols.max(1)).for_each(|row| {
        row.iter_mut().zip(&norms).for_each(|(w, n)| *w = w.abs() * n);
    });
    Selection { pattern, scope: Scope::Row, row_weights: None, ranks }.prune(w, scores);
}

//! Wanda (Sun et al., *A Simple and Effective Pruning Approach for Large
//! Language Models*, ICLR 2024): weights and activations.

use super::pattern::{Pattern, count, prune_groups, smallest};
use crate::linalg::Matrix;
use rayon::prelude::*;

/// Prunes `w: [d_out, d_in]` in place. The score is `|W_ij|·‖X_j‖₂`; of each
/// output row the ⌊ρ·d_in⌋ smallest go, or the N smallest of each group of M.
/// `squared_norms: [d_in]` holds `‖X_j‖²`.
pub fn prune(w: &mut Matrix, squared_norms: &[f32], pattern: Pattern) {
    let norms: Vec<f32> = squared_norms.iter().map(|n| n.sqrt()).collect();
    let d_in = w.cols;
    w.data.par_chunks_mut(d_in.max(1)).for_each(|row| {
        let scores: Vec<f32> = row.iter().zip(&norms).map(|(w, n)| w.abs() * n).collect();
        match pattern {
            Pattern::Unstructured(rho) => {
                for j in smallest(&scores, count(rho, d_in)) {
                    row[j as usize] = 0.0;
                }
            }
            Pattern::NofM { zeros, of } => prune_groups(row, &scores, zeros, of),
        }
    });
}

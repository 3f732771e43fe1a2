//! Magnitude pruning: the smallest |w| go.

use super::pattern::{Pattern, count, prune_groups, smallest};
use crate::linalg::Matrix;

/// Prunes `w` in place: the ⌊ρ·numel⌋ smallest magnitudes of the matrix, or the
/// N smallest of each group of M.
pub fn prune(w: &mut Matrix, pattern: Pattern) {
    let scores: Vec<f32> = w.data.iter().map(|v| v.abs()).collect();
    match pattern {
        Pattern::Unstructured(rho) => {
            for i in smallest(&scores, count(rho, scores.len())) {
                w.data[i as usize] = 0.0;
            }
        }
        Pattern::NofM { zeros, of } => prune_groups(&mut w.data, &scores, zeros, of),
    }
}

//! Magnitude pruning: the smallest |w| go.

use super::pattern::{Pattern, Scope, Selection};
use crate::linalg::Matrix;
use rayon::prelude::*;

/// Prunes `w` in place: the ⌊ρ·numel⌋ smallest magnitudes of the matrix, or the
/// N smallest of each group of M.
pub fn prune(w: &mut Matrix, pattern: Pattern) {
    let scores = w.data.par_iter().map(|v| v.abs()).collect();
    Selection { pattern, scope: Scope::Matrix, row_weights: None }.prune(w, scores);
}

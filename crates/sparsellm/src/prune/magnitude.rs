//! Magnitude pruning: the smallest |w| go.

use super::pattern::{Pattern, Scope, Selection};
use crate::linalg::Matrix;
use rayon::prelude::*;

/// Prunes `w` in place: the ⌊ρ·numel⌋ smallest magnitudes of the matrix, or the
/// N smallest of each group of M.
pub fn prune(w: &mut Matrix, pattern: Pattern) {
    let scores = w.data.par_iter().map(|v| v.abs()).collect();
    let selection = Selection { pattern, scope: Scope::Matrix, row_weights: None };
    let gone = selection.mask(scores, w.cols, 1.0);
    w.data.par_iter_mut().zip(gone).filter(|(_, gone)| *gone).for_each(|(w, _)| *w = 0.0);
}

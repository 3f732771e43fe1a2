//! Magnitude pruning: the smallest |w| go.

use super::pattern::{Pattern, Scope, Selection};
use crate::linalg::Matrix;
use crate::ranks::Communicator;
use rayon::prelude::*;

/// Prunes this rank's rows `w` in place: the ⌊ρ·numel⌋ smallest magnitudes of the matrix, or the
/// N smallest of each group of M.
pub fn prune(w: &mut Matrix, pattern: Pattern, ranks: &dyn Communicator) {
    let scores = w.data.par_iter().map(|v| v.abs()).collect();
    Selection { pattern, scope: Scope::Matrix, row_weights: None, ranks }.prune(w, scores);
}

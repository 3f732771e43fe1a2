//! Magnitude pruning: the smallest |w| go.

use crate::{
    Scope, Selection,
    methods::{Inputs, Method},
};
use rayon::prelude::*;
use sparsellm_tensor::Matrix;

/// Magnitude pruning: of each matrix, the ⌊ρ·numel⌋ smallest magnitudes go, or the N
/// smallest of each group of M.
#[derive(Clone, Copy, Debug)]
pub struct Magnitude;

impl Method for Magnitude {
    fn name(&self) -> &'static str {
        "magnitude"
    }

    fn prune(&self, w: &mut Matrix, _: &Inputs, selection: &Selection) {
        let scores = w.data.par_iter().map(|v| v.abs()).collect();
        Selection { scope: Scope::Matrix, ..*selection }.prune(w, scores);
    }
}

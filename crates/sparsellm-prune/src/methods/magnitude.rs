//! Magnitude pruning: the weights with the smallest |w| are removed.

use crate::{
    Scope, Selection,
    methods::{Inputs, Method},
};
use rayon::prelude::*;
use sparsellm_tensor::Matrix;

/// Magnitude pruning. It removes the ⌊ρ·numel⌋ weights of smallest magnitude from each matrix,
/// or the N smallest from each group of M.
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

//! Wanda (Sun et al., *A Simple and Effective Pruning Approach for Large Language Models*, ICLR
//! 2024): weights are scored by their magnitude and their inputs' norms.

use crate::{
    Scope, Selection,
    methods::{Inputs, Method, Needs},
};
use rayon::prelude::*;
use sparsellm_tensor::Matrix;

/// Wanda. The score of a weight is `|W_ij|·‖X_j‖₂`; the ⌊ρ·d_in⌋ weights with the lowest scores
/// are removed from each output row, or the N lowest from each group of M.
#[derive(Clone, Copy, Debug)]
pub struct Wanda;

impl Method for Wanda {
    fn name(&self) -> &'static str {
        "wanda"
    }

    fn needs(&self) -> Needs {
        Needs::SquaredNorms
    }

    fn prune(&self, w: &mut Matrix, inputs: &Inputs, selection: &Selection) {
        let norms: Vec<f32> = inputs.squared_norms.iter().map(|n| n.sqrt()).collect();
        let mut scores = w.data.clone();
        scores.par_chunks_mut(w.cols.max(1)).for_each(|row| {
            row.iter_mut().zip(&norms).for_each(|(w, n)| *w = w.abs() * n);
        });
        Selection { scope: Scope::Row, ..*selection }.prune(w, scores);
    }
}

//! Wanda (Sun et al., *A Simple and Effective Pruning Approach for Large
//! Language Models*, ICLR 2024): weights and activations.

use crate::{
    Scope, Selection,
    methods::{Inputs, Method, Needs},
};
use rayon::prelude::*;
use sparsellm_tensor::Matrix;

/// Wanda: the score is `|W_ij|·‖X_j‖₂`; of each output row the ⌊ρ·d_in⌋ smallest go,
/// or the N smallest of each group of M.
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

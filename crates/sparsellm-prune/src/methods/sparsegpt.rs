//! SparseGPT (Frantar & Alistarh, *SparseGPT: Massive Language Models Can Be
//! Accurately Pruned in One-Shot*, ICML 2023): every linear by the OBS solver.

use crate::{
    Selection,
    methods::{Inputs, Method, Needs},
};
use sparsellm_tensor::Matrix;

/// SparseGPT.
#[derive(Clone, Copy, Debug)]
pub struct SparseGpt;

impl Method for SparseGpt {
    fn name(&self) -> &'static str {
        "sparsegpt"
    }

    fn needs(&self) -> Needs {
        Needs::Gram
    }

    fn prune(&self, w: &mut Matrix, inputs: &Inputs, selection: &Selection) {
        if let Some(problem) = inputs.problem {
            problem.solve(w, inputs.products, selection);
        }
    }

    fn moves_weights(&self) -> bool {
        true
    }
}

//! SparseGPT (Frantar & Alistarh, *SparseGPT: Massive Language Models Can Be
//! Accurately Pruned in One-Shot*, ICML 2023): every linear is pruned by itself, with the
//! settings' solver (by default OBS).

use crate::{
    Selection,
    methods::{Inputs, Method, Needs},
};
use sparsellm_tensor::Matrix;

/// SparseGPT: every linear is pruned against the Hessian of its inputs.
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

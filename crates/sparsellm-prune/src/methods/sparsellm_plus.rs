//! SparseLLM with improved settings: the code is the same, and docs/results.md reports how
//! much each setting gains.

use crate::{
    OWL, Selection, Settings, Solver,
    methods::{Inputs, Method, Needs, SparseGpt},
};
use sparsellm_tensor::Matrix;

/// SparseLLM with the recipe that measured best.
#[derive(Clone, Copy, Debug)]
pub struct SparseLlmPlus;

impl Method for SparseLlmPlus {
    fn name(&self) -> &'static str {
        "sparsellm-plus"
    }

    fn defaults(&self) -> Settings {
        Settings {
            epochs: 2,
            true_sequential: true,
            solver: Solver::Admm,
            mask_scope: Solver::Admm.scope(),
            allocation: OWL,
            sequential_refit: true,
            target: 0.25,
            neuron_weights: 0.5,
            ..Settings::published(self.name())
        }
    }

    fn needs(&self) -> Needs {
        Needs::Gram
    }

    fn prune(&self, w: &mut Matrix, inputs: &Inputs, selection: &Selection) {
        SparseGpt.prune(w, inputs, selection);
    }

    fn moves_weights(&self) -> bool {
        true
    }

    fn is_global(&self) -> bool {
        true
    }
}

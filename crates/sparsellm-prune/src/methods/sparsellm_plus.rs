//! SparseLLM with improved settings. The code is the same; docs/results.md reports how much each
//! setting gains.

use super::sparsellm::prune_as_sparsellm;
use crate::{
    Allocation, Selection, Settings, Solver,
    methods::{Inputs, Method, Needs, SparseGpt},
    tune::TuneScope,
};
use sparsellm_tensor::Matrix;

/// SparseLLM with the settings that measured best.
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
            allocation: Allocation::Measured,
            sequential_refit: true,
            target: 0.25,
            neuron_weights: 0.5,
            tune: TuneScope::Global,
            ..Settings::published(self.name())
        }
    }

    prune_as_sparsellm!();
}

//! SparseLLM as published (Bai et al., NeurIPS 2024): attention is pruned as SparseGPT prunes it,
//! and feed-forward networks as a whole (`crate::sparsellm`).

use crate::{
    Selection,
    methods::{Inputs, Method, Needs, SparseGpt},
};
use sparsellm_tensor::Matrix;

/// The trait functions that every method of the SparseLLM kind shares; such methods differ in
/// their names and defaults alone.
macro_rules! prune_as_sparsellm {
    () => {
        fn needs(&self) -> Needs {
            SparseGpt.needs()
        }

        fn prune(&self, w: &mut Matrix, inputs: &Inputs, selection: &Selection) {
            SparseGpt.prune(w, inputs, selection);
        }

        fn moves_weights(&self) -> bool {
            true
        }

        fn runs_sparsellm(&self) -> bool {
            true
        }
    };
}
pub(super) use prune_as_sparsellm;

/// SparseLLM as published.
#[derive(Clone, Copy, Debug)]
pub struct SparseLlm;

impl Method for SparseLlm {
    fn name(&self) -> &'static str {
        "sparsellm"
    }

    prune_as_sparsellm!();
}

//! SparseLLM as published (Bai et al., NeurIPS 2024): attention by the OBS solver,
//! feed-forward networks as a whole (`crate::sparsellm`).

use crate::{
    Selection,
    methods::{Inputs, Method, Needs, SparseGpt},
};
use sparsellm_tensor::Matrix;

/// SparseLLM as published.
#[derive(Clone, Copy, Debug)]
pub struct SparseLlm;

impl Method for SparseLlm {
    fn name(&self) -> &'static str {
        "sparsellm"
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

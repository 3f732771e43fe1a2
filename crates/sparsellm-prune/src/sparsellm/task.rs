//! The input of the alternating loop, and its result.

use super::streaming::Streaming;
use crate::{Selection, Settings, Share};
use sparsellm_model::Norm;
use sparsellm_ranks::Communicator;
use sparsellm_tensor::Matrix;

/// The data and the settings that a network is pruned with.
#[derive(Clone, Copy)]
pub struct Task<'a> {
    /// This rank's calibration inputs, `[tokens, d]`.
    pub x: &'a Matrix,
    /// The settings.
    pub settings: &'a Settings,
    /// What is asked of each of the network's linears, the first ones before the last. Where there is
    /// no share, the settings' pattern is.
    pub shares: &'a [Share],
    /// How the tokens are streamed.
    pub streaming: &'a Streaming,
    /// The ranks that hold the other tokens.
    pub ranks: &'a dyn Communicator,
}

impl Task<'_> {
    /// The selection for all rows of the network's linear at this place.
    pub fn selection(&self, place: usize) -> Selection<'_> {
        match self.shares.get(place) {
            Some(share) => share.selection(self.settings, self.ranks),
            None => self.settings.selection(self.ranks),
        }
    }
}

/// The output with which the network would restore the dense model's hidden states.
pub struct Reference {
    /// That output for this rank's tokens, `[tokens, d]`, biases included.
    pub output: Matrix,
    /// The norm between the network's output and `output`, if the block has one (Gemma 2).
    pub norm: Option<Norm>,
}

/// The result of pruning a feed-forward network.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The true error `E = ‖T − FFN_sparse(X)‖²/‖Y‖²` after each epoch's prune, where the target T
    /// is Y unless it leans on a reference. If Y is zero on all tokens, E is the numerator alone.
    pub errors: Vec<f64>,
    /// The epoch whose weights were kept, counted from 1.
    pub kept_epoch: usize,
    /// The largest relative damping that a Hessian needed, for the first linears and for the last.
    pub damping: [f32; 2],
    /// Warnings for the user, such as a Hessian that needed more damping than requested.
    pub warnings: Vec<String>,
}

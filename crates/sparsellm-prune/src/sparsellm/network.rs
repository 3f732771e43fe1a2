//! A feed-forward network pruned as a whole: which updates it takes, what is asked of
//! it, and how it fared.

use super::{
    alternation::Alternation, gated::Gated, relu::ReluUpdates, smooth::Smooth, state::Streaming,
    updates::Updates,
};
use crate::Settings;
use sparsellm_base::Result;
use sparsellm_model::{Activation, Ffn, Linear, Norm};
use sparsellm_ranks::Communicator;
use sparsellm_tensor::{Matrix, with_activation};

/// What a network is pruned on, and how.
#[derive(Clone, Copy)]
pub struct Task<'a> {
    /// This rank's calibration inputs, `[tokens, d]`.
    pub x: &'a Matrix,
    /// The settings.
    pub settings: &'a Settings,
    /// How the tokens are streamed.
    pub streaming: &'a Streaming,
    /// The ranks that have the other tokens.
    pub ranks: &'a dyn Communicator,
}

/// What the network would have to give to end in the dense model's hidden states.
pub struct Reference {
    /// `[tokens, d]`, biases included.
    pub output: Matrix,
    /// The norm that the network's output goes through before it is held against
    /// that, where there is one (Gemma 2).
    pub norm: Option<Norm>,
}

/// How a feed-forward network fared.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The true error `E = ‖Y − FFN_sparse(X)‖²/‖Y‖²` after each epoch's prune.
    pub errors: Vec<f64>,
    /// The epoch whose weights were kept, counted from 1.
    pub kept_epoch: usize,
    /// The largest relative damping that the Hessians of the first linears and of
    /// the last needed.
    pub damping: [f32; 2],
    /// What was not as asked for, in words.
    pub warnings: Vec<String>,
}

/// Prunes a feed-forward network in place. `observe` is told each epoch (from 1) and
/// its error, and ends the run with an error of its own. The target leans on the
/// `reference`, where there is one.
///
/// Returns `None` where no epoch gave anything finite: the network's weights are then
/// of no use.
///
/// # Errors
/// The observer's, and those of the temporary file that may hold z and s.
pub fn prune_network(
    ffn: &mut Ffn,
    reference: Option<Reference>,
    task: &Task,
    observe: &mut dyn FnMut(usize, f64) -> Result<()>,
) -> Result<Option<Outcome>> {
    let (alpha, beta) = task.settings.penalties(ffn);
    let run = |updates: &dyn Updates, first: &mut [&mut Linear], last: &mut Linear| {
        let alternation = Alternation::start(updates, first, last, reference, task)?;
        match alternation {
            Some(alternation) => alternation.run(first, last, beta / alpha, observe),
            None => Ok(None),
        }
    };
    match ffn {
        Ffn::Plain { fc1, fc2, activation: Activation::Relu } => {
            run(&ReluUpdates { alpha, beta }, &mut [fc1], fc2)
        }
        Ffn::Plain { fc1, fc2, activation } => {
            with_activation!(*activation, |f| run(&Smooth { alpha, beta, f }, &mut [fc1], fc2))
        }
        Ffn::Gated { gate, up, down, activation } => {
            with_activation!(*activation, |f| {
                run(&Gated { alpha, beta, f }, &mut [up, gate], down)
            })
        }
    }
}

//! Prunes a feed-forward network as a whole, with the updates that suit its kind.

use super::{
    alternation::Alternation,
    gated::Gated,
    relu::ReluUpdates,
    smooth::Smooth,
    task::{Outcome, Reference, Task},
    updates::Updates,
};
use sparsellm_base::Result;
use sparsellm_model::{Activation, Ffn, Linear};
use sparsellm_tensor::with_activation;

/// Prunes a feed-forward network in place. If a `reference` is given, the target leans on it.
/// `observe` is called with each epoch (counted from 1) and its error.
///
/// Returns `None` if no epoch gave finite weights; the network's weights are then useless.
///
/// # Errors
/// If `observe` returns an error, which ends the run, or if the temporary file for z and s cannot
/// be used.
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

//! A feed-forward network pruned as a whole: which updates it takes.

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

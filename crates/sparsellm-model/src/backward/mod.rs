//! The backward pass of a block: from the gradient of a loss with respect to its output to
//! those with respect to its input and its parameters.
//!
//! What the forward pass computed in between is computed again, so that only a block's input
//! need be kept for it.

mod attention;
mod block;
mod gradients;
mod halves;
mod norm;
mod parameters;

pub use block::HalfInput;
pub use gradients::{BlockGradients, LinearGradient, NormGradient};
pub use parameters::VectorParameter;

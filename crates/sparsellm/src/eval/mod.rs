//! What a model is worth: perplexity, and zero-shot tasks.

mod head;
mod likelihood;
mod perplexity;
pub mod tasks;

pub use likelihood::{Likelihood, Request, likelihoods};
pub use perplexity::{Perplexity, perplexity};

/// Hidden states kept at once, in f32 values: each decoder layer is loaded once
/// per that many.
const BATCH: usize = 1 << 26;

//! What pruning cost: perplexity.

mod perplexity;

pub use perplexity::{Perplexity, perplexity};

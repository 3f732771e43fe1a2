//! The interface of a model family.

use crate::{Block, Embedding, Head, Tensors};
use sparsellm_base::Result;

/// A model family with one model's configuration. It declares which tensors there are and how
/// they fit together, and computes nothing itself.
pub trait Family: Send + Sync {
    /// Sizes of the model.
    fn shape(&self) -> Shape;

    /// Declares how tokens become hidden states.
    ///
    /// # Errors
    /// If a tensor is missing, misshapen, or cannot be read.
    fn embedding(&self, tensors: &Tensors) -> Result<Embedding>;

    /// The prefix of all tensors of decoder layer `index`, such as `model.layers.3.`.
    fn block_prefix(&self, index: usize) -> String;

    /// Declares decoder layer `index`; `tensors` are those under its prefix.
    ///
    /// # Errors
    /// As for [`embedding`](Self::embedding).
    fn block(&self, tensors: &Tensors, index: usize) -> Result<Block>;

    /// Declares how hidden states become logits.
    ///
    /// # Errors
    /// As for [`embedding`](Self::embedding).
    fn head(&self, tensors: &Tensors) -> Result<Head>;
}

/// Sizes of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Number of decoder layers.
    pub layers: usize,
    /// Width of the hidden states, d.
    pub hidden: usize,
    /// Number of token ids.
    pub vocabulary: usize,
    /// The positions that the model was made for, if its configuration says how many.
    pub positions: Option<usize>,
    /// Whether positions are learned, so that no segment can be longer.
    pub learned_positions: bool,
}

//! The memory law of tuning (ARCHITECTURE.md).

use super::{epochs::HELD_OUT, head::TOKENS};
use crate::rows::StateType;
use sparsellm_base::Result;
use sparsellm_model::{Model, segments_per_chunk};
use sparsellm_tensor::SparseWeights;

/// What the memory that tuning the whole model takes depends on.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// The weights of all linears.
    pub weights: usize,
    /// Those that are kept of them.
    pub kept: usize,
    /// The bytes of all weights in the form that multiplies fastest, beside the dense one.
    pub packed: usize,
    /// The weights of the largest decoder layer.
    pub largest: usize,
    /// The larger width of the widest linear.
    pub widest: usize,
    /// d, the width of the hidden states.
    pub hidden: usize,
    /// The number of decoder layers.
    pub layers: usize,
    /// The number of tokens in the vocabulary.
    pub vocabulary: usize,
    /// The number of tokens of the text.
    pub tokens: usize,
    /// The tokens that go through the model at once.
    pub piece: usize,
}

impl Sizes {
    /// The sizes of a model of which each layer keeps this share of its weights, on so many
    /// `tokens` in segments of `seq_len`.
    ///
    /// # Errors
    /// If a layer's tensors do not have the shapes that they should have.
    pub fn of(
        model: &Model,
        (tokens, seq_len): (usize, usize),
        share: impl Fn(usize) -> f64,
    ) -> Result<Sizes> {
        let shape = model.shape();
        let mut sizes = Sizes {
            weights: 0,
            kept: 0,
            packed: 0,
            largest: 0,
            widest: shape.hidden,
            hidden: shape.hidden,
            layers: shape.layers,
            vocabulary: shape.vocabulary,
            tokens,
            piece: tokens.min(segments_per_chunk(seq_len) * seq_len),
        };
        for index in 0..shape.layers {
            let block = model.outline(index)?;
            let (mut layer, share) = (0, share(index));
            for linear in block.linears() {
                layer += linear.weight.rows * linear.weight.cols;
                sizes.widest = sizes.widest.max(linear.weight.cols).max(linear.weight.rows);
            }
            sizes.weights += layer;
            sizes.kept += (share * layer as f64) as usize;
            sizes.packed += SparseWeights::bytes(layer, share);
            sizes.largest = sizes.largest.max(layer);
        }
        Ok(sizes)
    }
}

/// The bytes of a layer's parameters that move, for each kept weight: its gradient (f64), and its
/// moments, unless they are in a file.
pub fn moving(state: StateType, spilled: bool) -> usize {
    size_of::<f64>() + if spilled { 0 } else { 2 * state.size() }
}

/// The bytes for each kept weight of its value where the model was best, and where it is now while
/// the two are compared.
pub const COMPARED: usize = 2 * size_of::<f32>();

/// The number of bytes that tuning the whole model takes at most, with moments of this type, in
/// memory or in files.
pub fn peak(sizes: Sizes, state: StateType, spilled: bool) -> usize {
    let Sizes { hidden: d, piece, .. } = sizes;
    // A bit says which weights are kept.
    let weights = 4 * sizes.weights + sizes.packed + sizes.weights / 8;
    let kept = sizes.kept * (moving(state, spilled) + COMPARED);
    let held_out = sizes.tokens * d / HELD_OUT;
    // The dense model while it runs: its hidden states twice, as ranks gather them, and a layer.
    let teacher = 2 * sizes.tokens * d + sizes.largest;
    // One layer's dense gradient, the layers' inputs, what a pass through one layer computes, the
    // dense model's last hidden states, the logits of a tile.
    let passes = sizes.largest
        + piece * ((sizes.layers + 2) * d + 8 * d + 4 * sizes.widest)
        + sizes.tokens * d
        + 2 * TOKENS * sizes.vocabulary;
    weights + kept + 4 * (sizes.vocabulary * d + held_out + teacher.max(passes))
}

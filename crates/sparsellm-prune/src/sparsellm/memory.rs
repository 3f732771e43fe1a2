//! The memory law (ARCHITECTURE.md): how much the method allocates at most, beyond its inputs X
//! and the layer's weights.

use super::streaming::Streaming;
use crate::{Settings, Solver};
use sparsellm_tensor::{SparseWeights, TILE};

/// The sizes that decide how much memory one layer takes.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// The number n of calibration tokens.
    pub tokens: usize,
    /// The width d of the hidden states.
    pub d: usize,
    /// The width d_ff of the feed-forward network.
    pub d_ff: usize,
    /// The number k of first linears: 1 for plain networks, 2 for gated ones.
    pub first: usize,
    /// The number t of threads that work on tiles.
    pub threads: usize,
}

/// The bytes that persist for the tokens: the target, and z (and s) unless they are kept in a file.
fn per_token(sizes: Sizes, settings: &Settings, streaming: &Streaming) -> usize {
    let Sizes { tokens: n, d, d_ff, first: k, .. } = sizes;
    let state = match streaming.spill {
        None => n * k * d_ff * settings.state.size(),
        Some(_) => 0,
    };
    state + 4 * n * d
}

/// The largest number of bytes that are allocated at once.
pub fn peak(sizes: Sizes, settings: &Settings, streaming: &Streaming) -> usize {
    let Sizes { tokens: n, d, d_ff, first: k, threads } = sizes;
    let admm = settings.solver == Solver::Admm;
    let linear = d * d_ff;
    // The sums Tᵀa and zᵀX in f64, the best weights, the dense last linear, the packed weights, and
    // the a-update's solver.
    let kept = 1.0 - settings.pattern.sparsity();
    let packed = SparseWeights::bytes((k + 1) * linear, kept) / 4;
    // A byte for each weight that says whether it must stay zero.
    let held = if settings.keep_zeros { (k + 1) * linear / 4 } else { 0 };
    let weights = (3 * k + 4 + usize::from(settings.sequential_refit)) * linear + packed + held;
    // aᵀa, and what is made from XᵀX.
    let grams = d_ff * d_ff + if admm { 4 } else { 2 } * d * d;
    // The factor of aᵀa and its inverse; for ADMM also H and an inverse of its own.
    let factors = if admm { 4 } else { 2 } * d_ff * d_ff;
    // ADMM's b, U, next W and mask, or the sweep's scores, errors and masks.
    let solving = match admm {
        true => 4 * linear + linear / 4,
        false => 3 * d.max(d_ff) * settings.block_size,
    };
    let chunk = streaming.chunk.min(n) * d_ff;
    // A chunk's z (and s) as f32, and as they are stored in a file.
    let copies =
        usize::from(!streaming.in_place(settings.state)) + usize::from(streaming.spill.is_some());
    let rows = k * chunk * copies;
    // For each tile: the first linears' outputs, the network's output, and a packed input.
    let tiles = threads * TILE.min(n) * ((k + 1) * d_ff + d + 384);
    // A chunk's z without its bias, in families that have one.
    let unbiased = if k == 1 { chunk } else { 0 };
    let pass = chunk + rows + tiles.max(unbiased);
    per_token(sizes, settings, streaming) + 4 * (weights + grams + pass.max(factors + solving))
}

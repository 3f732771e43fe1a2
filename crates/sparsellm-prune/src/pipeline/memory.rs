//! The memory that a run needs, computed before the run begins (ARCHITECTURE.md).

use super::plan::Plan;
use crate::sparsellm::{
    Streaming,
    memory::{Sizes, peak},
};
use crate::tune::TOKENS;
use sparsellm_base::{Result, usage_error};
use sparsellm_model::{Block, segments_per_chunk};
use sparsellm_tensor::{SparseWeights, TILE};
use std::path::Path;

/// The bytes that the program itself, its threads and a tokenizer take.
const PROGRAM: usize = 96 << 20;

/// The numbers that tuning holds for each kept weight, in f32: its gradient (f64), two moments, its
/// best value, and one more of these while an epoch is compared.
const KEPT: usize = 6;

/// Chooses where z and s are kept so that a run on `tokens` calibration tokens in segments of
/// `seq_len` stays within the plan's memory: in memory if they fit, and otherwise in a temporary
/// file in `folder`. Also returns the number of bytes that the run then needs at most.
///
/// # Errors
/// If the run needs more memory than the plan allows even with the temporary file.
pub fn streaming(
    plan: &Plan,
    (tokens, seq_len): (usize, usize),
    folder: &Path,
) -> Result<(Streaming, usize)> {
    let limit = plan.memory.unwrap_or(usize::MAX);
    let tokens = if plan.needs_text() { tokens } else { 0 };
    let chunk = segments_per_chunk(seq_len) * seq_len;
    let mut streaming = Streaming::in_memory(chunk);
    let most = needed(plan, tokens, &streaming)?;
    if most <= limit {
        return Ok((streaming, most));
    }
    streaming.spill = Some(folder.into());
    let least = needed(plan, tokens, &streaming)?;
    if least <= limit {
        return Ok((streaming, least));
    }
    usage_error!(
        "`memory`: this run needs {:.2} GB at least, and {:.2} GB was allowed; use fewer or shorter segments (`samples`, `seq_len`), or allow more",
        least as f64 / 1e9,
        limit as f64 / 1e9
    )
}

/// The number of bytes that a run needs at most, while it prunes its largest layer.
fn needed(plan: &Plan, tokens: usize, streaming: &Streaming) -> Result<usize> {
    let layers = plan.settings.layers.clone().unwrap_or(0..plan.model.shape().layers);
    let mut most = 0;
    for index in layers {
        most = most.max(needed_by_layer(plan, &plan.model.outline(index)?, tokens, streaming));
    }
    let d = plan.model.shape().hidden;
    let hidden = tokens * d * if plan.settings.target > 0.0 { 2 } else { 1 };
    let tuning = if plan.settings.tune.model() { needed_by_tuning(plan, streaming)? } else { 0 };
    Ok(PROGRAM + 4 * (hidden + most).max(tuning))
}

/// The number of f32 values that tuning the whole model takes at most.
fn needed_by_tuning(plan: &Plan, streaming: &Streaming) -> Result<usize> {
    let shape = plan.model.shape();
    let tokens = plan.calibration.map_or(0, |c| c.segments.tokens.len());
    let (mut all, mut kept, mut widest) = (0, 0, shape.hidden);
    for index in 0..shape.layers {
        let block = plan.model.outline(index)?;
        let pruned = plan.settings.layers.as_ref().is_none_or(|range| range.contains(&index));
        let share = if pruned { 1.0 - plan.settings.pattern.sparsity() } else { 0.0 };
        for linear in block.linears() {
            let size = linear.weight.rows * linear.weight.cols;
            all += size + SparseWeights::bytes(size, share) / 4;
            kept += (share * size as f64) as usize;
            widest = widest.max(linear.weight.cols).max(linear.weight.rows);
        }
    }
    let piece = tokens.min(streaming.chunk);
    let states = (tokens + (shape.layers + 2) * piece) * shape.hidden;
    let passes = piece * (8 * shape.hidden + 4 * widest);
    let logits = shape.vocabulary * (2 * shape.hidden + 2 * TOKENS);
    Ok(all + KEPT * kept + states + passes + logits)
}

/// The number of f32 values that pruning a layer takes at most.
fn needed_by_layer(plan: &Plan, block: &Block, tokens: usize, streaming: &Streaming) -> usize {
    let (settings, d) = (plan.settings, plan.model.shape().hidden);
    let linears = block.linears();
    let sizes = || linears.iter().map(|l| l.weight.rows * l.weight.cols);
    let (all, largest): (usize, usize) = (sizes().sum(), sizes().max().unwrap_or(0));
    let widest = linears.iter().map(|l| l.weight.cols).max().unwrap_or(0);
    let threads = rayon::current_num_threads();
    let chunk = tokens.min(streaming.chunk);

    let kept = 1.0 - settings.pattern.sparsity();
    let layer = all + SparseWeights::bytes(all, kept) / 4;
    // The dense layer, T and two more states of the residual stream, and what is kept.
    let tuning = match settings.tune.blocks() {
        true => all + 3 * tokens * d + KEPT * (kept * all as f64) as usize,
        false => 0,
    };
    // A chunk's hidden states, normalised inputs, q, k, v, mixed values, and a.
    let forward = chunk * (6 * d + 2 * widest) + threads * TILE * 3 * widest;
    let grams = match !plan.method.moves_weights() && settings.refit == 0 {
        true => 0,
        false => 2 * d * d + 2 * widest * widest,
    };
    // The factor, the matrix that it is made from, and a solver's copies of the weights.
    let held = if settings.keep_zeros { largest / 4 } else { 0 };
    let solving = 2 * widest * widest + 5 * largest + held;
    let local = grams + forward.max(solving);
    let global = plan.method.runs_sparsellm().then(|| {
        let d_ff = block.ffn.last().weight.cols;
        let sizes = Sizes { tokens, d, d_ff, first: block.ffn.first().len(), threads };
        let streaming = Streaming { chunk: chunk.max(1), ..streaming.clone() };
        let reference = if settings.target > 0.0 { tokens * d } else { 0 };
        tokens * d + reference.max(peak(sizes, settings, &streaming) / 4)
    });
    layer + tuning + local.max(global.unwrap_or(0))
}

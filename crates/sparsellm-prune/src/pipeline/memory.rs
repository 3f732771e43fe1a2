//! The memory that a run needs, computed before the run begins (ARCHITECTURE.md).

use super::{allocation, plan::Plan};
use crate::memory::{PROGRAM, within};
use crate::sparsellm::{
    Streaming,
    memory::{Sizes, peak},
};
use crate::tune::{self, COMPARED, moving};
use crate::{Allocation, Pattern};
use sparsellm_base::Result;
use sparsellm_model::{Block, segments_per_chunk};
use sparsellm_tensor::{SparseWeights, TILE};
use std::path::Path;

/// Chooses where z, s and moments are kept so that a run stays within the plan's memory: in memory if
/// they fit, and otherwise in temporary files in `folder`. Also returns the number of bytes that
/// the run then needs at most.
///
/// # Errors
/// If the run needs more memory than the plan allows even with the temporary files.
pub fn streaming(plan: &Plan, folder: &Path) -> Result<(Streaming, usize)> {
    let (tokens, seq_len) = plan.calibration.map_or((0, 1), |c| {
        let seq_len = c.segments.seq_len;
        let piece = segments_per_chunk(seq_len) * seq_len;
        (plan.ranks.largest_share_in_pieces(c.segments.tokens.len(), piece), seq_len)
    });
    let tokens = if plan.needs_text() { tokens } else { 0 };
    let chunk = segments_per_chunk(seq_len) * seq_len;
    let streaming =
        |spilled: bool| Streaming { chunk, spill: spilled.then(|| folder.to_path_buf()) };
    let (spilled, bytes) =
        within(plan.memory, |spilled| needed(plan, tokens, &streaming(spilled)))?;
    Ok((streaming(spilled), bytes))
}

/// The number of bytes that a run needs at most: while it prunes its largest layer, or while it
/// tunes the whole model.
fn needed(plan: &Plan, tokens: usize, streaming: &Streaming) -> Result<usize> {
    let layers = plan.settings.layers.clone().unwrap_or(0..plan.model.shape().layers);
    let mut most = 0;
    for index in layers {
        most = most.max(needed_by_layer(plan, &plan.model.outline(index)?, tokens, streaming));
    }
    let d = plan.model.shape().hidden;
    let hidden = tokens * d * if plan.settings.target > 0.0 { 2 } else { 1 };
    let tuning = match plan.settings.tune.model() {
        true => needed_by_tuning(plan, streaming)?,
        false => 0,
    };
    let allocating = match (plan.settings.allocation, plan.settings.pattern) {
        (Allocation::Measured, Pattern::Unstructured(_)) if plan.calibration.is_some() => {
            needed_by_allocation(plan)?
        }
        _ => 0,
    };
    Ok(PROGRAM + (4 * hidden + most.max(allocating)).max(tuning))
}

/// The number of bytes, beside the hidden states of all tokens, that it takes at most to measure what
/// pruning costs.
fn needed_by_allocation(plan: &Plan) -> Result<usize> {
    let shape = plan.model.shape();
    let (tokens, seq_len) = plan
        .calibration
        .map_or((0, 1), |c| (allocation::measured_tokens(&c.segments), c.segments.seq_len));
    let piece = tokens.min(segments_per_chunk(seq_len) * seq_len);
    let range = plan.settings.layers.clone().unwrap_or(0..shape.layers);
    let mut most = 0;
    for index in range {
        let block = plan.model.outline(index)?;
        let linears = block.linears();
        let sizes = || linears.iter().map(|l| l.weight.rows * l.weight.cols);
        let (all, largest): (usize, usize) = (sizes().sum(), sizes().max().unwrap_or(0));
        let widest = linears.iter().map(|l| l.weight.cols.max(l.weight.rows)).max().unwrap_or(0);
        // The sums of all groups (f64), then a Hessian, its factor, and a linear's copies.
        let squares = |group: &sparsellm_model::Group| block.input_width(group).pow(2);
        let sums: usize = block.groups().iter().map(squares).sum();
        let trial = 2 * sums + 3 * widest * widest + 4 * largest;
        // One layer there and back, as in tuning.
        let pass = piece * (10 * shape.hidden + 4 * widest);
        most = most.max(all + trial.max(pass));
    }
    // The hidden states, or the gradients with respect to them, of which one is copied.
    let hidden = 3 * tokens * shape.hidden;
    let head = shape.vocabulary * (shape.hidden + tune::TOKENS);
    Ok(4 * (hidden + most.max(head)))
}

/// The number of bytes that tuning the whole model takes at most.
fn needed_by_tuning(plan: &Plan, streaming: &Streaming) -> Result<usize> {
    let text = plan.calibration.map_or((0, 1), |c| (c.segments.tokens.len(), c.segments.seq_len));
    let share = |index| match plan.settings.layers.as_ref().is_none_or(|r| r.contains(&index)) {
        true => 1.0 - plan.settings.pattern.sparsity(),
        false => 0.0,
    };
    let sizes = tune::Sizes::of(plan.model, text, share)?;
    Ok(tune::peak(sizes, plan.settings.state, streaming.spill.is_some()))
}

/// The number of bytes that pruning a layer takes at most.
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
        true => {
            let each = moving(settings.state, streaming.spill.is_some()) + COMPARED;
            4 * (all + 3 * tokens * d) + each * (kept * all as f64) as usize
        }
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
    4 * (layer + local.max(global.unwrap_or(0))) + tuning
}

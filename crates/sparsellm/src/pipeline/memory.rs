//! What a run needs of the memory, known before it begins (ARCHITECTURE.md).

use super::together;
use crate::error::{Result, usage};
use crate::linalg::{SparseWeights, TILE};
use crate::model::Model;
use crate::prune::sparsellm::{self, Storage, memory::Sizes};
use crate::settings::Settings;
use std::path::Path;

/// The program itself, its threads, and a tokenizer.
const PROGRAM: usize = 96 << 20;

/// Where z and s go, and what the run then needs at most, so that a run on
/// `tokens` calibration tokens in segments of `seq_len` stays within `limit`
/// bytes: in memory, or where they would be too much, in a temporary file in
/// `folder`.
///
/// # Errors
/// Where even that needs more.
pub fn storage(
    model: &Model,
    settings: &Settings,
    (tokens, seq_len): (usize, usize),
    limit: Option<usize>,
    folder: &Path,
) -> Result<(Storage, usize)> {
    let limit = limit.unwrap_or(usize::MAX);
    let mut storage = Storage { state: settings.state, spill: None };
    let most = needed(model, settings, tokens, seq_len, &storage);
    if most <= limit {
        return Ok((storage, most));
    }
    storage.spill = Some(folder.into());
    let least = needed(model, settings, tokens, seq_len, &storage);
    if least <= limit {
        return Ok((storage, least));
    }
    usage!(
        "--memory: this run needs {:.2} GB at least, and {:.2} GB was allowed; use fewer or shorter segments (--samples, --seq-len), or allow more",
        least as f64 / 1e9,
        limit as f64 / 1e9
    )
}

/// The bytes a run needs at most.
fn needed(
    model: &Model,
    settings: &Settings,
    tokens: usize,
    seq_len: usize,
    storage: &Storage,
) -> usize {
    let linears = model.family.linears();
    let sizes = || linears.iter().map(|(_, [rows, cols])| rows * cols);
    let (all, largest): (usize, usize) = (sizes().sum(), sizes().max().unwrap_or(0));
    let widest = linears.iter().map(|(_, [_, cols])| *cols).max().unwrap_or(0);
    let (d, threads) = (model.shape().hidden, rayon::current_num_threads());
    let tokens = if settings.needs_text() { tokens } else { 0 };
    let chunk = tokens.min(together(seq_len) * seq_len);

    let kept = 1.0 - settings.pattern.sparsity();
    let layer = all + SparseWeights::bytes(all, kept) / 4;
    let hidden = tokens * d * if settings.target > 0.0 { 2 } else { 1 };
    // A chunk's hidden states, normalised inputs, q, k, v, mixed values, and a.
    let forward = chunk * (6 * d + 2 * widest) + threads * TILE * 3 * widest;
    let grams = match settings.method.only_removes() && settings.refit == 0 {
        true => 0,
        false => 2 * d * d + 2 * widest * widest,
    };
    // The factor, its making, and what a solver keeps beside the weights.
    let solving = 2 * widest * widest + 5 * largest;
    let local = grams + forward.max(solving);
    let global = settings.method.is_global().then(|| {
        // Besides q, k, v, o and the last one.
        let first = linears.len().saturating_sub(5);
        let sizes = Sizes { tokens, d, d_ff: widest, first, threads };
        let settings =
            sparsellm::Settings { storage: storage.clone(), ..settings.global(1.0, chunk.max(1)) };
        let reference = if settings.target > 0.0 { tokens * d } else { 0 };
        tokens * d + reference.max(sparsellm::memory::peak(sizes, &settings) / 4)
    });
    PROGRAM + 4 * (layer + hidden + local.max(global.unwrap_or(0)))
}

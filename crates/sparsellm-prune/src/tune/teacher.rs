//! What the dense model computes on the text that tunes the pruned one.

use super::TunePlan;
use crate::rows::{Keep, Rows, StateType};
use sparsellm_base::{Event, Observer, Result};
use sparsellm_model::segments_per_chunk;
use sparsellm_ranks::Communicator;
use sparsellm_tensor::{Matrix, View};
use std::{collections::BTreeMap, path::Path};

/// The hidden states of the dense model that the pruned one should have.
pub struct Teacher {
    seq_len: usize,
    /// The inputs of the head, `[tokens, d]`.
    last: Matrix,
    /// The hidden states after some of the layers, by layer.
    layers: BTreeMap<usize, Rows>,
}

impl Teacher {
    /// Runs the dense model; each rank runs its share of the segments. The hidden states between
    /// layers, if the settings want them matched, are kept in temporary files in `folder`.
    ///
    /// # Errors
    /// If the model's weights cannot be read, the files cannot be written, or the observer returns
    /// an error.
    pub fn new(plan: &TunePlan, folder: &Path, observe: &mut Observer) -> Result<Teacher> {
        let TunePlan { dense, segments, ranks, settings, .. } = *plan;
        let (seq_len, tokens) = (segments.seq_len, &segments.tokens);
        let piece = segments_per_chunk(seq_len) * seq_len;
        let own = ranks.share_in_pieces(tokens.len(), piece);
        let mut hidden = dense.embed(&tokens[own.clone()], seq_len)?;
        let of = dense.shape().layers;
        let mut layers = BTreeMap::new();
        for index in 0..of {
            dense.block(index)?.run(&mut hidden, seq_len);
            if settings.hidden_weight > 0.0 && matched(index, of) {
                layers.insert(index, kept(&gathered(&hidden, tokens.len(), ranks), folder)?);
            }
            observe.notify(Event::Measured { what: "dense model", done: index + 1, of })?;
        }
        let last = gathered(&dense.finish(hidden)?, tokens.len(), ranks);
        Ok(Teacher { seq_len, last, layers })
    }

    /// The inputs of the head on some segments.
    pub fn last(&self, segments: &[usize]) -> Matrix {
        let rows = segments.iter().map(|segment| segment * self.seq_len);
        let of_segment = |first| self.last.rows(first..first + self.seq_len).data;
        let data: Vec<f32> = rows.flat_map(of_segment).copied().collect();
        Matrix::new(segments.len() * self.seq_len, self.last.cols, data)
    }

    /// The hidden states after a layer on some segments, if they are to be matched.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn after(&mut self, layer: usize, segments: &[usize]) -> Result<Option<Matrix>> {
        let Some(rows) = self.layers.get_mut(&layer) else { return Ok(None) };
        let mut data = Vec::new();
        for segment in segments {
            let first = segment * self.seq_len;
            data.extend_from_slice(rows.read(first..first + self.seq_len)?);
        }
        Ok(Some(Matrix::new(segments.len() * self.seq_len, self.last.cols, data)))
    }

    /// The number of layers whose hidden states are to be matched.
    pub fn matched(&self) -> usize {
        self.layers.len()
    }
}

/// Keeps hidden states in a temporary file.
fn kept(hidden: &Matrix, folder: &Path) -> Result<Rows> {
    const PIECE: usize = 1024;
    let keep = Keep { state: StateType::Bf16, spill: Some(folder) };
    let mut rows = Rows::new(hidden.rows, hidden.cols, keep)?;
    for first in (0..hidden.rows).step_by(PIECE) {
        let piece = first..(first + PIECE).min(hidden.rows);
        rows.write(piece.clone(), hidden.rows(piece).data)?;
    }
    Ok(rows)
}

/// The rows of all ranks, `tokens` of them, given this rank's.
fn gathered(mine: &Matrix, tokens: usize, ranks: &dyn Communicator) -> Matrix {
    let counts: Vec<usize> =
        ranks.gather_numbers(mine.data.len() as f64).into_iter().map(|n| n as usize).collect();
    let width = counts.iter().sum::<usize>() / tokens.max(1);
    let mut all = Matrix::zeros(tokens, width);
    ranks.gather(&mine.data, &counts, &mut all.data);
    all
}

fn matched(index: usize, of: usize) -> bool {
    let stride: usize = std::env::var("STRIDE").ok().and_then(|v| v.parse().ok()).unwrap_or(1);
    index + 1 < of && (index + 1) % stride == 0
}

/// Adds to `d` the gradient of `weight · Σ_t ‖h_t − ĥ_t‖² / ‖ĥ_t‖²` with respect to a layer's
/// hidden states h: their distance from the dense model's, ĥ, as Kurtic et al. (*Sparse
/// Fine-tuning for Inference Acceleration of Large Language Models*, 2023) have it. Each token
/// counts alike, whatever its power.
pub fn pull(h: View, dense: View, weight: f32, d: &mut Matrix) {
    let cols = h.cols.max(1);
    let pairs = h.data.chunks_exact(cols).zip(dense.data.chunks_exact(cols));
    for (d, (h, dense)) in d.data.chunks_exact_mut(cols).zip(pairs) {
        let power: f32 = dense.iter().map(|v| v * v).sum();
        let factor = 2.0 * weight / power.max(f32::MIN_POSITIVE);
        d.iter_mut().zip(h).zip(dense).for_each(|((d, h), dense)| *d += factor * (h - dense));
    }
}

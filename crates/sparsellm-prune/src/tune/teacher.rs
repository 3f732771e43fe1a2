//! What the dense model computes on the text that tunes the pruned one.

use crate::rows::{Keep, Rows, StateType};
use sparsellm_base::{Event, Observer, Result};
use sparsellm_model::{Model, segments_per_chunk};
use sparsellm_ranks::Communicator;
use sparsellm_tensor::{Matrix, View};
use sparsellm_text::Segments;
use std::{collections::BTreeMap, path::Path};

/// The layers, at most, whose hidden states are matched: each takes `tokens × d` numbers of disk.
const MATCHED: usize = 12;

/// A text, and the hidden states that the dense model has on it.
pub struct Teacher {
    text: Segments,
    /// The inputs of the head, `[tokens, d]`.
    last: Matrix,
    /// The hidden states after some of the layers, by layer.
    layers: BTreeMap<usize, Rows>,
}

impl Teacher {
    /// Runs the dense model on a text; each rank runs its share of the segments. The hidden states
    /// between layers, if they are to be matched, are kept in temporary files in `folder`.
    ///
    /// # Errors
    /// If the model's weights cannot be read, the files cannot be written, or the observer returns
    /// an error.
    pub fn new(
        dense: &Model,
        text: Segments,
        folder: Option<&Path>,
        ranks: &dyn Communicator,
        observe: &mut Observer,
    ) -> Result<Teacher> {
        let (seq_len, tokens) = (text.seq_len, &text.tokens);
        let piece = segments_per_chunk(seq_len) * seq_len;
        let own = ranks.share_in_pieces(tokens.len(), piece);
        let mut hidden = dense.embed(&tokens[own.clone()], seq_len)?;
        let of = dense.shape().layers;
        let mut layers = BTreeMap::new();
        for index in 0..of {
            dense.block(index)?.run(&mut hidden, seq_len);
            if let Some(folder) = folder.filter(|_| is_matched(index, of)) {
                layers.insert(index, kept(&gathered(&hidden, tokens.len(), ranks), folder)?);
            }
            observe.notify(Event::Measured { what: "dense model", done: index + 1, of })?;
        }
        let last = gathered(&dense.finish(hidden)?, tokens.len(), ranks);
        Ok(Teacher { text, last, layers })
    }

    /// The inputs of the head on some segments.
    pub fn last(&self, segments: &[usize]) -> Matrix {
        let of_segment = |segment: &usize| self.last.rows(self.text.rows(*segment)).data;
        let data: Vec<f32> = segments.iter().flat_map(of_segment).copied().collect();
        Matrix::new(segments.len() * self.text.seq_len, self.last.cols, data)
    }

    /// The tokens of some segments.
    pub fn tokens(&self, segments: &[usize]) -> Vec<u32> {
        let of_segment = |segment: &usize| &self.text.tokens[self.text.rows(*segment)];
        segments.iter().flat_map(of_segment).copied().collect()
    }

    /// The number of segments.
    pub fn count(&self) -> usize {
        self.text.count()
    }

    /// The hidden states after a layer on some segments, if they are to be matched.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn after(&mut self, layer: usize, segments: &[usize]) -> Result<Option<Matrix>> {
        let Some(rows) = self.layers.get_mut(&layer) else { return Ok(None) };
        let mut data = Vec::new();
        for segment in segments {
            data.extend_from_slice(rows.read(self.text.rows(*segment))?);
        }
        Ok(Some(Matrix::new(segments.len() * self.text.seq_len, rows.cols(), data)))
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

/// Whether the hidden states after this layer are matched: those after every layer of a small model,
/// and those after every k-th of one with more than [`MATCHED`]. After the last layer, the
/// divergence matches them.
fn is_matched(index: usize, layers: usize) -> bool {
    index + 1 < layers && (index + 1).is_multiple_of(layers.div_ceil(MATCHED))
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

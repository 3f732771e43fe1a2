//! Causal self-attention, without a tokens×tokens matrix in memory.

use super::{Linear, Norm, Rope, rope};
use crate::linalg::{Matrix, View, softmax};
use crate::profile;
use faer::{Accum, MatMut, MatRef, Par, linalg::matmul::matmul};
use rayon::prelude::*;

/// Query rows handled at once: their scores are the only quadratic temporary.
const QUERIES: usize = 64;

/// The attention block of a decoder layer.
#[derive(Clone, Debug)]
pub struct Attention {
    /// Query projection, `[heads·head_dim, d]`.
    pub q: Linear,
    /// Key projection, `[kv_heads·head_dim, d]`.
    pub k: Linear,
    /// Value projection, `[kv_heads·head_dim, d]`.
    pub v: Linear,
    /// Output projection, `[d, heads·head_dim]`.
    pub o: Linear,
    /// Number of query heads; a multiple of `kv_heads`.
    pub heads: usize,
    /// Number of key and value heads (grouped-query attention).
    pub kv_heads: usize,
    /// Features per head.
    pub head_dim: usize,
    /// Norm of each query head (Qwen3).
    pub q_norm: Option<Norm>,
    /// Norm of each key head (Qwen3).
    pub k_norm: Option<Norm>,
    /// Rotary embedding; absent where positions are learned (OPT).
    pub rope: Option<Rope>,
    /// How many keys a query sees, itself included (Mistral).
    pub window: Option<usize>,
}

impl Attention {
    /// Mixes the values: everything before the output projection.
    ///
    /// `x: [segments·seq_len, d]` (already normalised) gives
    /// `[segments·seq_len, heads·head_dim]`, the input of `o`.
    pub fn mix(&self, x: View, seq_len: usize) -> Matrix {
        let table = self.rope.as_ref().map(|rope| rope.table(seq_len));
        let position = |mut projected: Matrix, norm: &Option<Norm>| {
            let (hd, cols) = (self.head_dim, projected.cols);
            projected.data.par_chunks_mut(cols).enumerate().for_each(|(t, row)| {
                for head in row.chunks_exact_mut(hd) {
                    if let Some(norm) = norm {
                        norm.apply(head);
                    }
                    if let Some(table) = &table {
                        let p = t % seq_len;
                        rope::rotate(head, &table[p * hd..(p + 1) * hd]);
                    }
                }
            });
            projected
        };
        let q = position(self.q.forward(x), &self.q_norm);
        let k = position(self.k.forward(x), &self.k_norm);
        let v = self.v.forward(x);
        self.attend(&q, &k, &v, seq_len)
    }

    /// `softmax(QKᵀ/√head_dim) V` per segment and head, causally masked.
    fn attend(&self, q: &Matrix, k: &Matrix, v: &Matrix, seq_len: usize) -> Matrix {
        let (hd, segments) = (self.head_dim, q.rows / seq_len.max(1));
        // Causal: half of QKᵀ, and half of its product with V.
        profile::count(2 * q.rows * seq_len * self.heads * hd, 2 * q.data.len() + 2 * k.data.len());
        let heads: Vec<Vec<f32>> = (0..segments * self.heads)
            .into_par_iter()
            .map(|task| {
                let (segment, head) = (task / self.heads, task % self.heads);
                let kv_head = head / (self.heads / self.kv_heads);
                let part = |m, h| columns_of_head(m, segment * seq_len, seq_len, h * hd, hd);
                self.attend_head(part(q, head), part(k, kv_head), part(v, kv_head))
            })
            .collect();
        let mut out = Matrix::zeros(q.rows, self.heads * hd);
        let cols = out.cols;
        out.data.par_chunks_mut(cols).enumerate().for_each(|(t, row)| {
            let (segment, p) = (t / seq_len, t % seq_len);
            for (head, slot) in row.chunks_exact_mut(hd).enumerate() {
                let source = &heads[segment * self.heads + head];
                slot.copy_from_slice(&source[p * hd..(p + 1) * hd]);
            }
        });
        out
    }

    /// One head of one segment: `q, k, v: [seq_len, head_dim]`.
    fn attend_head(&self, q: MatRef<f32>, k: MatRef<f32>, v: MatRef<f32>) -> Vec<f32> {
        let (seq_len, hd) = (q.nrows(), self.head_dim);
        let scale = 1.0 / (hd as f32).sqrt();
        let mut out = vec![0.0; seq_len * hd];
        let mut scores = vec![0.0; QUERIES * seq_len];
        for (block, out) in out.chunks_mut(QUERIES * hd).enumerate() {
            let (first, n) = (block * QUERIES, out.len() / hd);
            // Keys any query of this block sees.
            let from = self.window.map_or(0, |w| (first + 1).saturating_sub(w));
            let keys = first + n - from;
            let scores = &mut scores[..n * keys];
            matmul(
                MatMut::from_row_major_slice_mut(scores, n, keys),
                Accum::Replace,
                q.subrows(first, n),
                k.subrows(from, keys).transpose(),
                scale,
                Par::Seq,
            );
            for (i, row) in scores.chunks_exact_mut(keys).enumerate() {
                let end = first + i + 1 - from;
                let start = self.window.map_or(0, |w| end.saturating_sub(w));
                softmax(&mut row[start..end]);
                row[..start].fill(0.0);
                row[end..].fill(0.0);
            }
            matmul(
                MatMut::from_row_major_slice_mut(out, n, hd),
                Accum::Replace,
                MatRef::from_row_major_slice(scores, n, keys),
                v.subrows(from, keys),
                1.0,
                Par::Seq,
            );
        }
        out
    }
}

/// Rows `first..first + n` and columns `column..column + width` of `m`.
fn columns_of_head(
    m: &Matrix,
    first: usize,
    n: usize,
    column: usize,
    width: usize,
) -> MatRef<'_, f32> {
    let data = &m.data[first * m.cols + column..];
    MatRef::from_row_major_slice_with_stride(data, n, width, m.cols)
}

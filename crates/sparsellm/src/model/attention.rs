//! Causal self-attention, without a tokens×tokens matrix in memory.

use super::{Linear, Norm, Rope, rope};
use crate::linalg::{Matrix, View, exp_shifted, tiles};
use crate::profile::{self, Region};
use faer::{Accum, MatMut, MatRef, Par, linalg::matmul::matmul};
use rayon::prelude::*;

/// Rows of scores computed at once, of all the query heads that share a key head:
/// the only quadratic temporary.
const ROWS: usize = 128;

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
        let position = |projected: &mut [f32], cols: usize, first: usize, norm: &Option<Norm>| {
            let hd = self.head_dim;
            for (t, row) in (first..).zip(projected.chunks_exact_mut(cols)) {
                for head in row.chunks_exact_mut(hd) {
                    if let Some(norm) = norm {
                        norm.apply(head);
                    }
                    if let Some(table) = &table {
                        let p = t % seq_len;
                        rope::rotate(head, &table[p * hd..(p + 1) * hd]);
                    }
                }
            }
        };
        let zeros = |linear: &Linear| Matrix::zeros(x.rows, linear.weight.rows);
        let (mut q, mut k, mut v) = (zeros(&self.q), zeros(&self.k), zeros(&self.v));
        let (q_cols, k_cols) = (q.cols, k.cols);
        tiles(x.rows, [&mut q.data, &mut k.data, &mut v.data], |rows, [q, k, v]| {
            let (first, x) = (rows.start, x.rows(rows));
            self.q.forward_tile(x, q, 0);
            self.k.forward_tile(x, k, 0);
            self.v.forward_tile(x, v, 0);
            position(q, q_cols, first, &self.q_norm);
            position(k, k_cols, first, &self.k_norm);
        });
        self.attend(&q, &k, &v, seq_len)
    }

    /// `softmax(QKᵀ/√head_dim) V` per segment and head, causally masked.
    fn attend(&self, q: &Matrix, k: &Matrix, v: &Matrix, seq_len: usize) -> Matrix {
        let hd = self.head_dim;
        // Causal: half of QKᵀ, and half of its product with V.
        profile::count(2 * q.rows * seq_len * self.heads * hd, 2 * q.data.len() + 2 * k.data.len());
        let mut out = Matrix::zeros(q.rows, q.cols);
        let queries = (ROWS * self.kv_heads / self.heads).max(1);
        let segments = out.data.chunks_mut((seq_len * q.cols).max(1)).enumerate();
        let blocks: Vec<_> = segments
            .flat_map(|(segment, out)| {
                let blocks = out.chunks_mut(queries * q.cols).enumerate();
                blocks.map(move |(block, out)| (segment * seq_len, block * queries, out))
            })
            .collect();
        let region = Region::here();
        blocks.into_par_iter().for_each(|(segment, first, out)| {
            region.task(|| self.attend_block(q, k, v, segment, first, out));
        });
        out
    }

    /// All heads of a block of queries: those from `first` on of the segment that
    /// starts at row `segment`, into `out: [queries, heads·head_dim]`.
    fn attend_block(
        &self,
        q: &Matrix,
        k: &Matrix,
        v: &Matrix,
        segment: usize,
        first: usize,
        out: &mut [f32],
    ) {
        let (hd, cols, shared) = (self.head_dim, q.cols, self.heads / self.kv_heads);
        let (n, scale) = (out.len() / cols, 1.0 / (hd as f32).sqrt());
        // Keys any query of this block sees.
        let from = self.window.map_or(0, |w| (first + 1).saturating_sub(w));
        let (rows, keys) = (n * shared, first + n - from);
        // Row `i·shared + h` is query i's in the h-th head that shares the key head.
        let mut queries = vec![0.0; rows * hd];
        let mut scores = vec![0.0; rows * keys];
        let mut sums = vec![0.0; rows];
        for head in 0..self.kv_heads {
            let columns = head * shared * hd..(head + 1) * shared * hd;
            for (i, row) in queries.chunks_exact_mut(shared * hd).enumerate() {
                row.copy_from_slice(&q.row(segment + first + i)[columns.clone()]);
            }
            matmul(
                MatMut::from_row_major_slice_mut(&mut scores, rows, keys),
                Accum::Replace,
                MatRef::from_row_major_slice(&queries, rows, hd),
                columns_of_head(k, segment + from, keys, head * hd, hd).transpose(),
                scale,
                Par::Seq,
            );
            for (row, scores) in scores.chunks_exact_mut(keys).enumerate() {
                let end = first + row / shared + 1 - from;
                let start = self.window.map_or(0, |w| end.saturating_sub(w));
                sums[row] = exp_shifted(&mut scores[start..end]);
                scores[..start].fill(0.0);
                scores[end..].fill(0.0);
            }
            let mixed = &mut queries;
            matmul(
                MatMut::from_row_major_slice_mut(mixed, rows, hd),
                Accum::Replace,
                MatRef::from_row_major_slice(&scores, rows, keys),
                columns_of_head(v, segment + from, keys, head * hd, hd),
                1.0,
                Par::Seq,
            );
            for (mixed, sum) in mixed.chunks_exact_mut(hd).zip(&sums) {
                mixed.iter_mut().for_each(|v| *v /= sum);
            }
            for (row, mixed) in out.chunks_exact_mut(cols).zip(mixed.chunks_exact(shared * hd)) {
                row[columns.clone()].copy_from_slice(mixed);
            }
        }
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

//! Causal self-attention, without a tokens×tokens matrix in memory.

use crate::{KeyValueCache, Linear, Norm, Positions, Rope};
use faer::{Accum, MatMut, MatRef, Par, linalg::matmul::matmul};
use rayon::prelude::*;
use sparsellm_tensor::profile::{self, Region};
use sparsellm_tensor::{Matrix, View, exp_shifted, softcap, tiles};
use std::sync::Arc;

/// Rows of scores that are computed at once, counted over all query heads that share a key
/// head. With a column for each key, they are the only temporary that is quadratic in the
/// segment's length.
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
    /// The number of query heads, a multiple of `kv_heads`.
    pub heads: usize,
    /// The number of key and value heads (grouped-query attention).
    pub kv_heads: usize,
    /// The features of a head.
    pub head_dim: usize,
    /// The norm of each query head (Qwen3).
    pub q_norm: Option<Norm>,
    /// The norm of each key head (Qwen3).
    pub k_norm: Option<Norm>,
    /// The rotary embedding of this layer, unless positions are learned.
    pub rope: Option<Arc<Rope>>,
    /// How many keys a query of this layer sees, its own included; all earlier ones if absent.
    pub window: Option<usize>,
    /// The factor on the scores.
    pub scale: f32,
    /// The cap c on the scores, which become `c·tanh(scores/c)` (Gemma 2).
    pub softcap: Option<f32>,
}

/// Queries, keys and values, with norms and positions applied.
struct Projected {
    q: Matrix,
    k: Matrix,
    v: Matrix,
    /// The number of keys before the first query: those that came from a cache.
    before: usize,
}

impl Attention {
    /// The usual scale, `1/√head_dim`.
    pub fn usual_scale(head_dim: usize) -> f32 {
        1.0 / (head_dim as f32).sqrt()
    }

    /// Computes the input of the output projection `o`, `[rows, heads·head_dim]`, from the
    /// normalised `x: [rows, d]`. With a `cache`, the rows are the next tokens of its text, and
    /// their keys and values are added to it.
    pub fn mix(&self, x: View, at: Positions, cache: Option<&mut KeyValueCache>) -> Matrix {
        let mut projected = self.project(x, at);
        let Some(cache) = cache else { return self.attend(&projected, at.seq_len) };
        projected.before = cache.len();
        let (keys, values) = cache.extend(&projected.k, &projected.v);
        (projected.k, projected.v) = (keys, values);
        let mixed = self.attend(&projected, at.seq_len);
        cache.restore(projected.k, projected.v);
        mixed
    }

    /// Computes the queries, keys and values of `x`.
    fn project(&self, x: View, at: Positions) -> Projected {
        let table = self.rope.as_ref().map(|rope| (rope.table(at.end()), rope.features()));
        let position = |projected: &mut [f32], cols: usize, first: usize, norm: &Option<Norm>| {
            for (t, row) in (first..).zip(projected.chunks_exact_mut(cols)) {
                for head in row.chunks_exact_mut(self.head_dim) {
                    if let Some(norm) = norm {
                        norm.apply(head);
                    }
                    if let Some((table, features)) = &table {
                        let row = &table[at.position(t) * features..][..*features];
                        Rope::rotate(&mut head[..*features], row);
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
        Projected { q, k, v, before: 0 }
    }

    /// `softmax(scale·QKᵀ) V` per segment and head, causally masked.
    fn attend(&self, projected: &Projected, seq_len: usize) -> Matrix {
        let hd = self.head_dim;
        let Projected { q, k, .. } = projected;
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
            region.task(|| self.attend_block(projected, segment, first, out));
        });
        out
    }

    /// All heads of a block of queries: those from `first` on of the segment that
    /// starts at row `segment`, into `out: [queries, heads·head_dim]`.
    fn attend_block(&self, projected: &Projected, segment: usize, first: usize, out: &mut [f32]) {
        let Projected { q, k, v, before } = projected;
        let (hd, cols, shared) = (self.head_dim, q.cols, self.heads / self.kv_heads);
        let n = out.len() / cols;
        // Keys any query of this block sees, counted from the segment's first.
        let seen = before + first;
        let from = self.window.map_or(0, |w| (seen + 1).saturating_sub(w));
        let (rows, keys) = (n * shared, seen + n - from);
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
                self.scale,
                Par::Seq,
            );
            for (row, scores) in scores.chunks_exact_mut(keys).enumerate() {
                let end = seen + row / shared + 1 - from;
                let start = self.window.map_or(0, |w| end.saturating_sub(w));
                if let Some(cap) = self.softcap {
                    softcap(&mut scores[start..end], cap);
                }
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

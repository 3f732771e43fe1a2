//! Causal self-attention, without a tokens×tokens matrix in memory.

use crate::{KeyValueCache, Linear, Norm, Positions, Rope};
use faer::{Accum, MatMut, MatRef, Par, linalg::matmul::matmul};
use rayon::prelude::*;
use sparsellm_tensor::profile::{self, Region};
use sparsellm_tensor::{Matrix, View, exp_shifted, softcap, tiles};
use std::{ops::Range, sync::Arc};

/// Rows of scores that are computed at once, counted over all query heads that share a key
/// head. With a column for each key, they are the only temporary that is quadratic in the
/// segment's length.
pub(crate) const ROWS: usize = 128;

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
pub(crate) struct Projected {
    pub q: Matrix,
    pub k: Matrix,
    pub v: Matrix,
    /// The number of keys before the first query: those that came from a cache.
    pub before: usize,
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
    pub(crate) fn project(&self, x: View, at: Positions) -> Projected {
        let places = self.places(at);
        let zeros = |linear: &Linear| Matrix::zeros(x.rows, linear.weight.rows);
        let (mut q, mut k, mut v) = (zeros(&self.q), zeros(&self.k), zeros(&self.v));
        let (q_cols, k_cols) = (q.cols, k.cols);
        tiles(x.rows, [&mut q.data, &mut k.data, &mut v.data], |rows, [q, k, v]| {
            let (first, x) = (rows.start, x.rows(rows));
            self.q.forward_tile(x, q, 0);
            self.k.forward_tile(x, k, 0);
            self.v.forward_tile(x, v, 0);
            for (heads, cols, norm) in [(q, q_cols, &self.q_norm), (k, k_cols, &self.k_norm)] {
                if let Some(norm) = norm {
                    heads.chunks_exact_mut(self.head_dim).for_each(|head| norm.apply(head));
                }
                places.rotate(heads, cols, first);
            }
        });
        Projected { q, k, v, before: 0 }
    }

    /// The rotations of rows at these positions.
    pub(crate) fn places(&self, at: Positions) -> Places {
        let rope = self.rope.as_ref().map(|rope| (rope.table(at.end()), rope.features()));
        Places { rope, at, head_dim: self.head_dim }
    }

    /// `softmax(scale·QKᵀ) V` per segment and head, causally masked.
    pub(crate) fn attend(&self, projected: &Projected, seq_len: usize) -> Matrix {
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

    /// Computes all heads of a block of queries: those from `first` on of the segment that
    /// starts at row `segment`, into `out: [queries, heads·head_dim]`.
    fn attend_block(&self, projected: &Projected, segment: usize, first: usize, out: &mut [f32]) {
        let (hd, cols, shared) = (self.head_dim, projected.q.cols, self.heads / self.kv_heads);
        let block = self.query_block(projected, segment, first, out.len() / cols);
        let (rows, keys) = (block.queries * shared, block.keys);
        let mut queries = vec![0.0; rows * hd];
        let mut scores = vec![0.0; rows * keys];
        let mut sums = vec![0.0; rows];
        for head in 0..self.kv_heads {
            self.scores(projected, &block, head, &mut queries, &mut scores);
            self.exponentials(&block, &mut scores, &mut sums);
            let mixed = &mut queries;
            matmul(
                MatMut::from_row_major_slice_mut(mixed, rows, hd),
                Accum::Replace,
                MatRef::from_row_major_slice(&scores, rows, keys),
                columns_of_head(&projected.v, block.first_key, keys, head * hd, hd),
                1.0,
                Par::Seq,
            );
            for (mixed, sum) in mixed.chunks_exact_mut(hd).zip(&sums) {
                mixed.iter_mut().for_each(|v| *v /= sum);
            }
            let columns = head * shared * hd..(head + 1) * shared * hd;
            for (row, mixed) in out.chunks_exact_mut(cols).zip(mixed.chunks_exact(shared * hd)) {
                row[columns.clone()].copy_from_slice(mixed);
            }
        }
    }

    /// The block of `queries` queries that begins with the `first` of the segment that starts at
    /// row `segment`.
    pub(crate) fn query_block(
        &self,
        projected: &Projected,
        segment: usize,
        first: usize,
        queries: usize,
    ) -> QueryBlock {
        let seen = projected.before + first;
        let from = self.window.map_or(0, |w| (seen + 1).saturating_sub(w));
        let keys = seen + queries - from;
        QueryBlock {
            first_query: segment + first,
            queries,
            first_key: segment + from,
            keys,
            seen: seen - from,
        }
    }

    /// Computes the scores of a block's queries in all query heads that share the key head `head`,
    /// scaled and capped. Row `i·shared + h` of `queries: [rows, head_dim]` and of
    /// `scores: [rows, keys]` is query i's in the h-th of these heads.
    pub(crate) fn scores(
        &self,
        projected: &Projected,
        block: &QueryBlock,
        head: usize,
        queries: &mut [f32],
        scores: &mut [f32],
    ) {
        let (hd, shared) = (self.head_dim, self.heads / self.kv_heads);
        let (rows, keys) = (block.queries * shared, block.keys);
        gather_heads(&projected.q, block, head * shared * hd, shared * hd, queries);
        matmul(
            MatMut::from_row_major_slice_mut(scores, rows, keys),
            Accum::Replace,
            MatRef::from_row_major_slice(queries, rows, hd),
            columns_of_head(&projected.k, block.first_key, keys, head * hd, hd).transpose(),
            self.scale,
            Par::Seq,
        );
        let Some(cap) = self.softcap else { return };
        for (row, scores) in scores.chunks_exact_mut(keys).enumerate() {
            softcap(&mut scores[self.visible(block, row)], cap);
        }
    }

    /// Replaces scores by their exponentials, 0 for keys that a query does not see, and sets
    /// the `sums` of the rows.
    pub(crate) fn exponentials(&self, block: &QueryBlock, scores: &mut [f32], sums: &mut [f32]) {
        for (row, scores) in scores.chunks_exact_mut(block.keys).enumerate() {
            let visible = self.visible(block, row);
            sums[row] = exp_shifted(&mut scores[visible.clone()]);
            scores[..visible.start].fill(0.0);
            scores[visible.end..].fill(0.0);
        }
    }

    /// The keys that a row of a block's scores sees.
    fn visible(&self, block: &QueryBlock, row: usize) -> Range<usize> {
        let end = block.seen + row / (self.heads / self.kv_heads) + 1;
        self.window.map_or(0, |w| end.saturating_sub(w))..end
    }
}

/// The rotations of rows of queries or keys, by their positions.
pub(crate) struct Places {
    rope: Option<(Arc<Vec<f32>>, usize)>,
    at: Positions,
    head_dim: usize,
}

impl Places {
    /// Rotates every head of rows of `cols` features, the first of which is row `first`.
    pub fn rotate(&self, rows: &mut [f32], cols: usize, first: usize) {
        self.each(rows, cols, first, Rope::rotate);
    }

    /// Takes gradients with respect to rotated rows back to those before the rotation.
    pub fn rotate_back(&self, rows: &mut [f32], cols: usize) {
        self.each(rows, cols, 0, Rope::rotate_back);
    }

    fn each(&self, rows: &mut [f32], cols: usize, first: usize, rotate: fn(&mut [f32], &[f32])) {
        let Some((table, features)) = &self.rope else { return };
        for (t, row) in (first..).zip(rows.chunks_exact_mut(cols)) {
            let cos_sin = &table[self.at.position(t) * features..][..*features];
            for head in row.chunks_exact_mut(self.head_dim) {
                rotate(&mut head[..*features], cos_sin);
            }
        }
    }
}

/// Queries of one segment that are computed together, and the keys that any of them sees.
pub(crate) struct QueryBlock {
    /// The row of the first query.
    pub first_query: usize,
    /// The number of queries.
    pub queries: usize,
    /// The row of the first key.
    pub first_key: usize,
    /// The number of keys.
    pub keys: usize,
    /// How many of the keys come before the first query.
    seen: usize,
}

/// Copies `width` columns from `column` on of a block's queries in `m`, query by query.
pub(crate) fn gather_heads(
    m: &Matrix,
    block: &QueryBlock,
    column: usize,
    width: usize,
    out: &mut [f32],
) {
    for (i, row) in out.chunks_exact_mut(width).enumerate() {
        row.copy_from_slice(&m.row(block.first_query + i)[column..column + width]);
    }
}

/// Rows `first..first + n` and columns `column..column + width` of `m`.
pub(crate) fn columns_of_head(
    m: &Matrix,
    first: usize,
    n: usize,
    column: usize,
    width: usize,
) -> MatRef<'_, f32> {
    let data = &m.data[first * m.cols + column..];
    MatRef::from_row_major_slice_with_stride(data, n, width, m.cols)
}

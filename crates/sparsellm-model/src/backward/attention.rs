//! The backward pass of attention's mixing of values.

use crate::{
    Attention,
    attention::{Projected, ROWS, columns_of_head, gather_heads},
};
use faer::{Accum, MatMut, MatRef, Par, linalg::matmul::matmul};
use rayon::prelude::*;
use sparsellm_tensor::{Matrix, dot, profile::Region};

/// What one key head and the query heads that share it contribute, in one segment.
struct HeadGradients {
    /// `[tokens, shared·head_dim]`.
    q: Vec<f32>,
    /// `[tokens, head_dim]`.
    k: Vec<f32>,
    /// `[tokens, head_dim]`.
    v: Vec<f32>,
}

impl Attention {
    /// The gradients with respect to queries, keys and values, given `mixed`, which
    /// [`mix`](Attention::mix) made of them in whole segments of `seq_len` tokens, and the
    /// gradient `d` with respect to it.
    ///
    /// With `P = softmax(S)`, `S = cap(scale·QKᵀ)` and `O = PV`, per head:
    ///
    /// ```text
    /// ∂L/∂V = Pᵀ ∂L/∂O
    /// ∂L/∂S = P ⊙ (∂L/∂O Vᵀ − rowsum(∂L/∂O ⊙ O))
    /// ∂L/∂Q = scale·(∂L/∂S ⊙ cap') K,   ∂L/∂K = scale·(∂L/∂S ⊙ cap')ᵀ Q,   cap' = 1 − (S/c)²
    /// ```
    pub(super) fn mix_backward(
        &self,
        projected: &Projected,
        mixed: &Matrix,
        d: &Matrix,
        seq_len: usize,
    ) -> [Matrix; 3] {
        let (segments, heads) = (d.rows / seq_len.max(1), self.kv_heads);
        let tasks: Vec<_> =
            (0..segments).flat_map(|s| (0..heads).map(move |h| (s * seq_len, h))).collect();
        let region = Region::here();
        let parts: Vec<HeadGradients> = tasks
            .par_iter()
            .map(|&(segment, head)| {
                region.task(|| {
                    self.head_backward(projected, (mixed, d), segment..segment + seq_len, head)
                })
            })
            .collect();
        let zeros = |m: &Matrix| Matrix::zeros(m.rows, m.cols);
        let Projected { q, k, v, .. } = projected;
        let (mut dq, mut dk, mut dv) = (zeros(q), zeros(k), zeros(v));
        let (hd, wide) = (self.head_dim, self.heads / self.kv_heads * self.head_dim);
        for ((segment, head), part) in tasks.into_iter().zip(parts) {
            put(&mut dq, segment, head * wide, wide, &part.q);
            put(&mut dk, segment, head * hd, hd, &part.k);
            put(&mut dv, segment, head * hd, hd, &part.v);
        }
        [dq, dk, dv]
    }

    fn head_backward(
        &self,
        projected: &Projected,
        (mixed, d): (&Matrix, &Matrix),
        segment: std::ops::Range<usize>,
        head: usize,
    ) -> HeadGradients {
        let (hd, shared, n) = (self.head_dim, self.heads / self.kv_heads, segment.len());
        let wide = shared * hd;
        let (mut k, mut v) = (vec![0.0; n * hd], vec![0.0; n * hd]);
        let mut q = vec![0.0; n * wide];
        let step = (ROWS / shared).max(1);
        for first in (0..n).step_by(step) {
            let block = self.query_block(projected, segment.start, first, step.min(n - first));
            let (rows, keys) = (block.queries * shared, block.keys);
            let gather = |m: &Matrix| {
                let mut out = vec![0.0; rows * hd];
                gather_heads(m, &block, head * wide, wide, &mut out);
                out
            };
            let (d_out, out) = (gather(d), gather(mixed));
            let (mut queries, mut scores) = (vec![0.0; rows * hd], vec![0.0; rows * keys]);
            self.scores(projected, &block, head, &mut queries, &mut scores);
            let capped = self.softcap.map(|cap| (cap, scores.clone()));
            let mut sums = vec![0.0; rows];
            self.exponentials(&block, &mut scores, &mut sums);
            for (scores, sum) in scores.chunks_exact_mut(keys).zip(&sums) {
                scores.iter_mut().for_each(|p| *p /= sum);
            }
            // The rows of this block's keys in `k` and `v`.
            let seen = (block.first_key - segment.start) * hd
                ..(block.first_key - segment.start + keys) * hd;
            let p = MatRef::from_row_major_slice(&scores, rows, keys);
            let d_rows = MatRef::from_row_major_slice(&d_out, rows, hd);
            let dv = MatMut::from_row_major_slice_mut(&mut v[seen.clone()], keys, hd);
            matmul(dv, Accum::Add, p.transpose(), d_rows, 1.0, Par::Seq);
            let values = columns_of_head(&projected.v, block.first_key, keys, head * hd, hd);
            let mut ds = vec![0.0; rows * keys];
            let dp = MatMut::from_row_major_slice_mut(&mut ds, rows, keys);
            matmul(dp, Accum::Replace, d_rows, values.transpose(), 1.0, Par::Seq);
            for (i, ds) in ds.chunks_exact_mut(keys).enumerate() {
                let along = dot(&d_out[i * hd..(i + 1) * hd], &out[i * hd..(i + 1) * hd]);
                let p = &scores[i * keys..(i + 1) * keys];
                ds.iter_mut().zip(p).for_each(|(ds, p)| *ds = p * (*ds - along));
            }
            if let Some((cap, capped)) = capped {
                let slope = |s: f32| 1.0 - (s / cap) * (s / cap);
                ds.iter_mut()
                    .zip(capped)
                    .for_each(|(ds, s)| *ds *= if *ds == 0.0 { 0.0 } else { slope(s) });
            }
            let ds = MatRef::from_row_major_slice(&ds, rows, keys);
            let of_keys = columns_of_head(&projected.k, block.first_key, keys, head * hd, hd);
            let dq =
                MatMut::from_row_major_slice_mut(&mut q[first * wide..][..rows * hd], rows, hd);
            matmul(dq, Accum::Replace, ds, of_keys, self.scale, Par::Seq);
            let dk = MatMut::from_row_major_slice_mut(&mut k[seen], keys, hd);
            let queries = MatRef::from_row_major_slice(&queries, rows, hd);
            matmul(dk, Accum::Add, ds.transpose(), queries, self.scale, Par::Seq);
        }
        HeadGradients { q, k, v }
    }
}

/// Copies `part: [tokens, width]` into columns `column..column + width` of the rows of `m` from
/// `first` on.
fn put(m: &mut Matrix, first: usize, column: usize, width: usize, part: &[f32]) {
    for (t, part) in part.chunks_exact(width).enumerate() {
        m.row_mut(first + t)[column..column + width].copy_from_slice(part);
    }
}

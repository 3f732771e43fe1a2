//! The OBS solver (Frantar & Alistarh, *SparseGPT: Massive Language Models Can
//! Be Accurately Pruned in One-Shot*, ICML 2023). It works on matrices alone and knows nothing of
//! models.

use crate::{Pattern, Scope, Selection, Settings, hessian::InverseFactor, select::each_smallest};
use rayon::prelude::*;
use sparsellm_tensor::{Matrix, View, sub_matmul_right_of, vectorized};
use std::ops::Range;

/// Prunes this rank's rows `w: [d_out, d_in]` in place and adjusts the kept weights to compensate
/// for the removed ones.
///
/// `factor` holds `U` with `H⁻¹ = UᵀU`. The sweep visits the columns in order. When it replaces a
/// weight w by q, then `err = (w − q)/U_jj`, and the weights to its right lose `err·U_j,j:`:
/// those in the same block at once, those beyond it in one product after the block.
///
/// The mask removes the ⌊ρ·numel⌋ weights with the lowest `w²/U_jj²` of each block, each row or
/// the whole matrix, according to the `selection`'s scope. An N:M mask is chosen for each row and
/// group when the sweep reaches the group's first column, from the weights as updated by then.
pub fn prune(w: &mut Matrix, factor: &InverseFactor, selection: &Selection, settings: &Settings) {
    let (d_out, d_in) = (w.rows, w.cols);
    let grid = settings.bits.map(|bits| Grid::of(w, bits));
    factor.kill(w);
    let u = &factor.u;
    let pattern = selection.pattern;
    // A scope wider than a block needs the masks of all columns before the sweep.
    let chosen = match (pattern, selection.scope) {
        (Pattern::Unstructured(_), Scope::Row | Scope::Matrix) => {
            Some(selection.mask(scores(w, u, 0..d_in), d_in, 1.0))
        }
        _ => None,
    };
    for start in (0..d_in).step_by(settings.block_size.max(1)) {
        let columns = start..(start + settings.block_size.max(1)).min(d_in);
        let n = columns.len();
        let held = selection.held.map(|held| of_columns(held, d_in, &columns));
        let masked = match (pattern, &chosen) {
            (_, Some(chosen)) => of_columns(chosen, d_in, &columns),
            (Pattern::Unstructured(_), None) => {
                let selection = Selection { held: held.as_deref(), ..*selection };
                selection.mask(scores(w, u, columns.clone()), n, 1.0)
            }
            (Pattern::NofM { .. }, None) => held.unwrap_or_else(|| vec![false; d_out * n]),
        };
        let block = Block { u, start, n, pattern };
        let mut errors = Matrix::zeros(d_out, n);
        errors
            .data
            .par_chunks_exact_mut(n)
            .zip(w.data.par_chunks_exact_mut(d_in))
            .zip(masked.into_par_iter().chunks(n))
            .enumerate()
            .for_each(|(i, ((errors, row), mut mask))| {
                let round = grid.as_ref().map(|grid| grid.rows[i]);
                vectorized(
                    #[inline(always)]
                    || block.sweep_row(&mut row[columns.clone()], errors, &mut mask, round),
                );
            });
        let right: View = u.rows(columns.clone());
        sub_matmul_right_of(w, columns.end, errors.view(), right);
    }
}

/// The marks of some columns, of a mask with `d_in` columns.
fn of_columns(mask: &[bool], d_in: usize, columns: &Range<usize>) -> Vec<bool> {
    mask.chunks_exact(d_in).flat_map(|row| &row[columns.clone()]).copied().collect()
}

/// `|w/U_jj|`, which ranks the weights of some columns as `w²/U_jj²` does.
fn scores(w: &Matrix, u: &Matrix, columns: Range<usize>) -> Vec<f32> {
    let n = columns.len();
    let mut scores = vec![0.0; w.rows * n];
    scores.par_chunks_exact_mut(n).enumerate().for_each(|(i, scores)| {
        for (score, j) in scores.iter_mut().zip(columns.clone()) {
            *score = (w.row(i)[j] / u.row(j)[j]).abs(); // no squares: they could underflow
        }
    });
    scores
}

/// One block of columns, shared by all rows.
struct Block<'a> {
    u: &'a Matrix,
    start: usize,
    n: usize,
    pattern: Pattern,
}

impl Block<'_> {
    /// Sweeps this block's columns of one row. `mask` marks the weights to remove; `errors`
    /// receives each column's `err`. With `round`, the kept weights are rounded.
    #[inline(always)]
    fn sweep_row(
        &self,
        row: &mut [f32],
        errors: &mut [f32],
        mask: &mut [bool],
        round: Option<RowGrid>,
    ) {
        for j in 0..self.n {
            if let Pattern::NofM { zeros, of } = self.pattern
                && j % of == 0
            {
                self.choose_group(row, mask, j, zeros, of.min(self.n - j));
            }
            let u = &self.u.row(self.start + j)[self.start + j..self.start + self.n];
            let w = row[j];
            let q = match round {
                _ if mask[j] => 0.0,
                Some(grid) => grid.round(w),
                None => w,
            };
            row[j] = q;
            if w == q {
                errors[j] = 0.0;
                continue;
            }
            let err = (w - q) / u[0];
            errors[j] = err;
            for (w, u) in row[j + 1..].iter_mut().zip(&u[1..]) {
                *w -= err * u;
            }
        }
    }

    /// Marks the `zeros` weights with the lowest scores among the `of` weights from column `j`.
    /// Those that are marked already (the held ones) come first, and stay marked.
    fn choose_group(&self, row: &[f32], mask: &mut [bool], j: usize, zeros: usize, of: usize) {
        let mut scores = [0.0; 64];
        let mut long = Vec::new();
        let scores = if of <= scores.len() {
            &mut scores[..of]
        } else {
            long.resize(of, 0.0);
            &mut long[..]
        };
        for (k, score) in scores.iter_mut().enumerate() {
            let at = self.start + j + k;
            *score = match mask[j + k] {
                true => f32::NEG_INFINITY,
                false => (row[j + k] / self.u.row(at)[at]).abs(),
            };
        }
        each_smallest(scores, zeros, |k| mask[j + k] = true);
    }
}

/// Rounds to nearest on an asymmetric grid per row, as SparseGPT's quantizer does:
/// `q = scale·(clamp(round(w/scale) + zero, 0, 2ᵇ − 1) − zero)`.
struct Grid {
    rows: Vec<RowGrid>,
}

#[derive(Clone, Copy)]
struct RowGrid {
    scale: f32,
    zero: f32,
    max: f32,
}

impl Grid {
    /// The grids that span each row's weights before pruning.
    fn of(w: &Matrix, bits: u32) -> Grid {
        let max = 2f32.powi(bits as i32) - 1.0;
        let row = |i: usize| {
            let (mut low, mut high) =
                w.row(i).iter().fold((0f32, 0f32), |(l, h), &v| (l.min(v), h.max(v)));
            if low == 0.0 && high == 0.0 {
                (low, high) = (-1.0, 1.0);
            }
            let scale = (high - low) / max;
            RowGrid { scale, zero: (-low / scale).round_ties_even(), max }
        };
        Grid { rows: (0..w.rows).map(row).collect() }
    }
}

impl RowGrid {
    #[inline(always)]
    fn round(self, w: f32) -> f32 {
        let level = (w / self.scale).round_ties_even() + self.zero;
        self.scale * (level.clamp(0.0, self.max) - self.zero)
    }
}

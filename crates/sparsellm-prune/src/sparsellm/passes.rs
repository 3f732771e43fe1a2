//! The passes over the calibration tokens. The loop needs only sums over tokens from them, so only
//! z (and s) persist between epochs. Tokens are processed in tiles, and the sums are gathered in
//! chunks of many tiles.

use super::{
    task::{Reference, Task},
    updates::Updates,
};
use crate::hessian::{CholeskyFactor, CrossGram, Gram, on_rows};
use crate::rows::Rows;
use rayon::prelude::*;
use sparsellm_base::Result;
use sparsellm_model::{Linear, Norm};
use sparsellm_ranks::Communicator;
use sparsellm_tensor::profile::{Phase, phase};
use sparsellm_tensor::{Matrix, View, tile_matmul_nt, tiles};
use std::{borrow::Cow, ops::Range};

/// The sums over all ranks' tokens from which the next weights are solved.
pub struct Sums {
    /// `aᵀa`.
    pub aa: Gram,
    /// `(T − b₂)ᵀ a: [d, d_ff]`.
    pub ta: CrossGram,
    /// `(z − b₁)ᵀ X: [d_ff, d]` for each first linear, one after another.
    pub zx: CrossGram,
}

impl Sums {
    /// Adds some tokens to the sums for the last linear.
    fn add_last(&mut self, target: View, a: &[f32]) {
        let a = View::new(a, self.aa.dim());
        self.aa.add(a);
        phase(Phase::Gram, || self.ta.add(target, a));
    }

    fn clear_last(&mut self) {
        self.aa.clear();
        self.ta.clear();
    }

    /// Adds up the ranks' sums for the last linear.
    fn sum_last(&mut self, ranks: &dyn Communicator) {
        self.aa.sum(ranks);
        self.ta.sum(ranks);
    }
}

/// The state with every variable at its dense value.
pub struct Start {
    /// z (and s).
    pub state: Rows,
    /// `T − b₂`, `[tokens, d]`.
    pub target: Matrix,
    /// `‖Y‖²`.
    pub norm: f64,
    /// `XᵀX`.
    pub xx: Gram,
    /// Holds `aᵀa` only, and with the sequential refit nothing, because that gathers its own a.
    pub sums: Sums,
    /// The importance of each row of each first linear, if the settings ask for it.
    pub neuron_weights: Vec<Option<Vec<f32>>>,
}

impl Start {
    /// Runs the dense network on this rank's tokens. The target T is the network's output Y, or
    /// `(1 − λ)Y + λR` if there is a `reference` R.
    pub fn new(
        updates: &dyn Updates,
        first: &[&mut Linear],
        last: &Linear,
        reference: Option<Reference>,
        task: &Task,
    ) -> Result<Start> {
        let Task { x, settings, streaming, ranks, .. } = task;
        let (d, d_ff) = (last.weight.rows, last.weight.cols);
        let width = first.len() * d_ff;
        let lambda = if reference.is_some() { settings.target } else { 0.0 };
        let (norm, reference) = reference.map_or((None, None), |r| (r.norm, Some(r.output)));
        let weigh = settings.neuron_weights > 0.0;
        let mut start = Start {
            state: Rows::new(x.rows, width, streaming.keep(settings.state))?,
            target: reference.unwrap_or_else(|| Matrix::zeros(x.rows, d)),
            norm: 0.0,
            xx: Gram::new(x.cols),
            sums: Sums {
                aa: Gram::new(d_ff),
                ta: CrossGram::new(d, d_ff),
                zx: CrossGram::new(width, x.cols),
            },
            neuron_weights: vec![None; first.len()],
        };
        let dense = Dense { updates, first, last, lambda, norm: norm.as_ref(), weigh };
        let mut slopes = vec![0.0; width];
        let mut a = vec![0.0; streaming.chunk.min(x.rows) * d_ff];
        for rows in chunks(x.rows, streaming.chunk) {
            let x = x.rows(rows.clone());
            let a = &mut a[..rows.len() * d_ff];
            let target = &mut start.target.data[rows.start * d..rows.end * d];
            let parts = start.state.with(rows, |z| {
                tiles(x.rows, [a, z, target], |rows, [a, z, t]| dense.tile(x.rows(rows), a, z, t))
            })?;
            for (norm, squares) in parts {
                start.norm += norm;
                slopes.iter_mut().zip(squares).for_each(|(sum, s)| *sum += s);
            }
            start.xx.add(x);
            if !settings.sequential_refit {
                start.sums.aa.add(View::new(a, d_ff));
            }
        }
        start.xx.sum(*ranks);
        start.norm = ranks.sum_number(start.norm);
        if !settings.sequential_refit {
            start.sums.aa.sum(*ranks);
        }
        if weigh {
            ranks.sum(&mut slopes);
            let weights = slopes.chunks_exact(d_ff);
            let weights = weights.map(|s| neuron_weights(s, &last.weight, settings.neuron_weights));
            start.neuron_weights = weights.map(Some).collect();
        }
        Ok(start)
    }
}

/// The dense network, and how the target is made from its output.
struct Dense<'a, 'b> {
    updates: &'a dyn Updates,
    first: &'a [&'b mut Linear],
    last: &'a Linear,
    /// How far the target leans on R, from 0 to 1.
    lambda: f32,
    /// The norm between the network's output and R, if there is one.
    norm: Option<&'a Norm>,
    /// Whether to sum the squared slopes of φ.
    weigh: bool,
}

impl Dense<'_, '_> {
    /// Computes a tile's z (and s), a and target. Returns the tile's `‖Y‖²` and, if they are
    /// wanted, its sums of squared slopes.
    fn tile(&self, x: View, a: &mut [f32], z: &mut [f32], target: &mut [f32]) -> (f64, Vec<f64>) {
        let (d, d_ff, lambda) = (self.last.weight.rows, self.last.weight.cols, self.lambda);
        let zero = vec![0.0; d];
        let bias = self.last.bias.as_deref().unwrap_or(&zero);
        forward(self.first, x, z);
        phi(self.updates, z, a, d_ff);
        let mut y = vec![0.0; target.len()];
        self.last.weight.product_tile(View::new(a, d_ff), &mut y, 0, false, 1.0);
        let mut norm = 0.0;
        for (t, y) in target.chunks_exact_mut(d).zip(y.chunks_exact(d)) {
            norm += squares(y.iter().zip(bias).map(|(y, b)| y + b));
            if let Some(output_norm) = self.norm.filter(|_| lambda > 0.0) {
                let output: Vec<f32> = y.iter().zip(bias).map(|(y, b)| y + b).collect();
                output_norm.pull_back(&output, t);
            }
            for ((t, y), b) in t.iter_mut().zip(y).zip(bias) {
                *t = if lambda > 0.0 { (1.0 - lambda) * y + lambda * (*t - b) } else { *y };
            }
        }
        let width = self.first.len() * d_ff;
        let slopes = if self.weigh { squared_slopes(self.updates, z, width) } else { Vec::new() };
        (norm, slopes)
    }
}

/// The importance of each neuron: how much an error in its pre-activation changes the network's
/// output, to first order, tempered by an exponent. For neuron i it is
/// `(Σ_t φ'(t, i)² · ‖W₂,:ᵢ‖²)^(exponent/2)`, relative to the mean over neurons before the exponent
/// is applied. `slopes: [d_ff]` is the sum over tokens. In a network where no neuron changes the
/// output (W₂ or all slopes are zero), all are equally important.
pub fn neuron_weights(slopes: &[f64], w2: &Matrix, exponent: f32) -> Vec<f32> {
    let mut worth = vec![0f64; w2.cols];
    for row in w2.data.chunks_exact(w2.cols.max(1)) {
        worth.iter_mut().zip(row).for_each(|(s, w)| *s += f64::from(w * w));
    }
    worth.iter_mut().zip(slopes).for_each(|(s, slope)| *s *= slope);
    let mean = worth.iter().sum::<f64>() / worth.len().max(1) as f64;
    if mean == 0.0 {
        return vec![1.0; worth.len()];
    }
    let scale = 1.0 / mean;
    worth.iter().map(|s| (s * scale).powf(0.5 * f64::from(exponent)) as f32).collect()
}

/// `φ'²` summed over a tile's tokens, for each argument of φ and each neuron.
fn squared_slopes(updates: &dyn Updates, pre: &[f32], width: usize) -> Vec<f64> {
    let mut sums = vec![0f64; width];
    let mut slopes = vec![0f32; width];
    for pre in pre.chunks_exact(width) {
        updates.slopes(pre, &mut slopes);
        sums.iter_mut().zip(&slopes).for_each(|(s, v)| *s += f64::from(v * v));
    }
    sums
}

/// One pass: the network with an epoch's sparse weights, its inputs and its target.
pub struct Pass<'a, 'b> {
    pub updates: &'a dyn Updates,
    pub first: &'a [&'b mut Linear],
    pub last: &'a Linear,
    pub target: &'a Matrix,
    pub x: &'a Matrix,
    /// The number of tokens per chunk.
    pub chunk: usize,
    /// Whether the last linear is fitted to what the first ones actually produce, in which case
    /// [`activations`](Self::activations) gathers its sums.
    pub sequential: bool,
}

impl Pass<'_, '_> {
    /// Gathers aᵀa and Tᵀa for the activations `a = φ(X W₁ᵀ + b₁)` of the current first linears.
    pub fn activations(&self, sums: &mut Sums, ranks: &dyn Communicator) {
        let d_ff = self.last.weight.cols;
        sums.clear_last();
        let mut a = vec![0.0; self.chunk.min(self.x.rows) * d_ff];
        for rows in chunks(self.x.rows, self.chunk) {
            let x = self.x.rows(rows.clone());
            let a = &mut a[..rows.len() * d_ff];
            tiles(x.rows, [a], |tile, [a]| {
                let mut pre = vec![0.0; tile.len() * self.width()];
                forward(self.first, x.rows(tile), &mut pre);
                phi(self.updates, &pre, a, d_ff);
            });
            sums.add_last(self.target.rows(rows), a);
        }
        sums.sum_last(ranks);
    }

    /// The squared error `‖T − FFN_sparse(X)‖²`.
    pub fn error(&self, ranks: &dyn Communicator) -> f64 {
        let errors = tiles(self.x.rows, [], |rows, []| {
            let mut pre = vec![0.0; rows.len() * self.width()];
            let mut a = vec![0.0; rows.len() * self.last.weight.cols];
            let mut out = vec![0.0; rows.len() * self.last.weight.rows];
            self.error_of_tile(rows, &mut pre, &mut a, &mut out)
        });
        ranks.sum_number(errors.iter().sum())
    }

    /// Returns [`error`](Self::error), and in the same pass makes a, moves z (and s), and gathers
    /// the sums for the next epoch's weights.
    pub fn update(
        &self,
        state: &mut Rows,
        sums: &mut Sums,
        solver: &Matrix,
        ranks: &dyn Communicator,
    ) -> Result<f64> {
        let (d_ff, sequential) = (self.last.weight.cols, self.sequential);
        sums.zx.clear();
        if !sequential {
            sums.clear_last();
        }
        let mut error = 0.0;
        let mut a = vec![0.0; self.chunk.min(self.x.rows) * d_ff];
        for rows in chunks(self.x.rows, self.chunk) {
            let (first, a) = (rows.start, &mut a[..rows.len() * d_ff]);
            let (x, target) = (self.x.rows(rows.clone()), self.target.rows(rows.clone()));
            error += state.with(rows, |z| {
                let errors = tiles(x.rows, [&mut *a, &mut *z], |tile, [a, z]| {
                    self.update_tile(first + tile.start..first + tile.end, a, z, solver)
                });
                let z = self.without_biases(z);
                let z = View::new(&z, self.width());
                phase(Phase::Gram, || sums.zx.add(z, x));
                errors.iter().sum::<f64>()
            })?;
            if !sequential {
                sums.add_last(target, a);
            }
        }
        sums.zx.sum(ranks);
        if !sequential {
            sums.sum_last(ranks);
        }
        Ok(ranks.sum_number(error))
    }

    /// Makes one tile's a and moves its z (and s). Returns the tile's part of the error.
    fn update_tile(
        &self,
        rows: Range<usize>,
        a: &mut [f32],
        state: &mut [f32],
        solver: &Matrix,
    ) -> f64 {
        let target = self.target.rows(rows.clone());
        let mut pre = vec![0.0; state.len()];
        let mut out = vec![0.0; target.data.len()];
        let error = self.error_of_tile(rows, &mut pre, a, &mut out);
        phase(Phase::A, || self.update_a(target, a, state, &mut out, solver));
        phase(Phase::Z, || {
            let (d_ff, width) = (self.last.weight.cols, self.width());
            let tokens = a.chunks_exact(d_ff).zip(pre.chunks_exact(width));
            tokens
                .zip(state.chunks_exact_mut(width))
                .for_each(|((a, pre), state)| self.updates.update(a, pre, state));
        });
        error
    }

    /// One tile's `‖T − φ W₂ᵀ‖²`, with φ of the first linears' outputs. It leaves these outputs in
    /// `pre`, φ in `a`, and the residual in `out`.
    fn error_of_tile(
        &self,
        rows: Range<usize>,
        pre: &mut [f32],
        a: &mut [f32],
        out: &mut [f32],
    ) -> f64 {
        forward(self.first, self.x.rows(rows.clone()), pre);
        phi(self.updates, pre, a, self.last.weight.cols);
        out.copy_from_slice(self.target.rows(rows).data);
        self.last.weight.product_tile(View::new(a, self.last.weight.cols), out, 0, true, -1.0);
        squares(out.iter().copied())
    }

    /// Sets `a = φ + (y − b₂ − φ W₂ᵀ) (W₂W₂ᵀ + (β/α) I)⁻¹ W₂`, with φ of the current z (and s). `solver` is `[(W₂W₂ᵀ + (β/α) I)⁻¹ W₂]ᵀ: [d_ff, d]`.
    fn update_a(&self, y: View, a: &mut [f32], state: &[f32], out: &mut [f32], solver: &Matrix) {
        phi(self.updates, state, a, solver.rows);
        out.copy_from_slice(y.data);
        self.last.weight.product_tile(View::new(a, solver.rows), out, 0, true, -1.0);
        tile_matmul_nt(a, 0, true, 1.0, View::new(out, solver.cols), solver.view());
    }

    /// `z − b₁` for some tokens.
    fn without_biases<'z>(&self, z: &'z [f32]) -> Cow<'z, [f32]> {
        if self.first.iter().all(|linear| linear.bias.is_none()) {
            return Cow::Borrowed(z);
        }
        let zero = vec![0.0; self.last.weight.cols];
        let bias: Vec<f32> =
            self.first.iter().flat_map(|l| l.bias.as_ref().unwrap_or(&zero)).copied().collect();
        let mut z = z.to_vec();
        z.par_chunks_exact_mut(bias.len()).for_each(|z| {
            z.iter_mut().zip(&bias).for_each(|(z, b)| *z -= b);
        });
        Cow::Owned(z)
    }

    /// The number of elements of z (and s) per token.
    fn width(&self) -> usize {
        self.first.len() * self.last.weight.cols
    }
}

/// The a-update's matrix `[(W₂W₂ᵀ + (β/α) I)⁻¹ W₂]ᵀ: [d_ff, d]`, with `ratio` = β/α. By the matrix
/// inversion lemma, a d×d factor takes the place of a d_ff×d_ff one. Returns `None` if it cannot be
/// factored.
pub fn a_solver(w2: &Matrix, ratio: f32, ranks: &dyn Communicator) -> Option<Matrix> {
    let mut w2t = w2.transposed();
    let gram = Gram::of(w2t.view(), ranks);
    let k = || {
        let mut k = gram.scaled(1.0);
        k.data.iter_mut().step_by(w2.rows + 1).for_each(|v| *v += ratio);
        k
    };
    let factor = CholeskyFactor::of(k, ranks)?;
    on_rows(ranks, &mut w2t, |rows, _| factor.solve_in_place(rows));
    Some(w2t)
}

/// Writes the first linears' outputs for a tile side by side into `pre`.
fn forward(first: &[&mut Linear], x: View, pre: &mut [f32]) {
    let mut at = 0;
    for linear in first {
        linear.forward_tile(x, pre, at);
        at += linear.weight.rows;
    }
}

/// Writes `φ` of a tile's tokens into `a`, d_ff elements for each.
fn phi(updates: &dyn Updates, pre: &[f32], a: &mut [f32], d_ff: usize) {
    let width = d_ff * pre.len() / a.len().max(1);
    let tokens = a.chunks_exact_mut(d_ff).zip(pre.chunks_exact(width));
    tokens.for_each(|(a, pre)| updates.phi(pre, a));
}

/// The consecutive ranges of at most `size` elements that cover `0..n`.
fn chunks(n: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    let size = size.max(1);
    (0..n).step_by(size).map(move |start| start..(start + size).min(n))
}

/// The sum of the squares of the values.
fn squares(values: impl Iterator<Item = f32>) -> f64 {
    values.map(|v| f64::from(v) * f64::from(v)).sum()
}

//! SparseLLM (Bai et al., *SparseLLM: Towards Global Pruning of Pre-trained
//! Language Models*, NeurIPS 2024): the linears of a feed-forward network
//! pruned together, against the dense network's output.
//!
//! With auxiliary z (s) for the first linears' outputs and a for the last
//! linear's input, it alternates closed-form updates on
//!
//! ```text
//! min  α‖Y − b₂ − a W₂ᵀ‖² + β‖a − φ(z)‖² + α‖z − b₁ − X W₁ᵀ‖²     (W₁, W₂ sparse)
//! ```
//!
//! where φ is relu(z) for OPT and silu(s)⊙z for LLaMA, whose gate adds a third
//! term `α‖s − X W_gateᵀ‖²`. This file is the loop; `relu.rs` and `swiglu.rs`
//! are the two sets of updates for φ, z and s.
//!
//! Tokens are streamed in chunks: every sum the weights need is a sum over
//! tokens, so only z (and s) persist between epochs, and a never does.

mod relu;
mod swiglu;

pub use relu::Relu;
pub use swiglu::SwiGlu;

use super::{
    Pattern,
    sparsegpt::{self, Sweep},
};
use crate::error::{Result, invalid};
use crate::linalg::{CholeskyFactor, Gram, InverseFactor, Matrix, View, add_matmul_tn, matmul_nt};
use crate::model::{Activation, FeedForward, Linear};
use rayon::prelude::*;

/// Relative damping λ/mean(diag G) of the least-squares problems.
const LEAST_SQUARES_DAMPING: f32 = 1e-4;

/// The settings of the global method.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Which weights go.
    pub pattern: Pattern,
    /// The OBS sweep's settings.
    pub sweep: Sweep,
    /// The OBS solver's relative damping.
    pub damping: f32,
    /// Penalty α of the linear constraints.
    pub alpha: f32,
    /// Penalty β of the activation constraint.
    pub beta: f32,
    /// Epochs of the alternating loop.
    pub epochs: usize,
    /// Tokens per chunk.
    pub chunk: usize,
}

/// How a feed-forward network fared.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The true error `E = ‖Y − FFN_sparse(X)‖²/‖Y‖²` after each epoch's prune.
    pub errors: Vec<f64>,
    /// The epoch whose weights were kept, counted from 1.
    pub kept_epoch: usize,
}

/// What differs between the two kinds of network: φ, and the updates of its
/// arguments. Slices hold one token's d_ff elements; `state` and `pre` are
/// `[z]` for ReLU and `[z, s]` for SwiGLU.
pub trait Updates: Sync {
    /// `φ(z[, s])`, into `a`.
    fn phi(&self, pre: &[&[f32]], a: &mut [f32]);

    /// Moves z (and s) to lower the objective, given `a` and the first linears'
    /// outputs `pre` (m, and g).
    fn update(&self, a: &[f32], pre: &[&[f32]], state: &mut [&mut [f32]]);
}

/// Fails on a network the method has no updates for.
pub fn check(ffn: &FeedForward) -> Result<()> {
    match ffn {
        FeedForward::Mlp { activation: Activation::Gelu, .. } => invalid!(
            "sparsellm needs a ReLU or SwiGLU feed-forward network, and this model's is gelu; use --method sparsegpt"
        ),
        FeedForward::Mlp { activation: Activation::Relu, .. } | FeedForward::SwiGlu { .. } => {
            Ok(())
        }
    }
}

/// Prunes a feed-forward network in place on the calibration inputs
/// `x: [tokens, d]`; `observe` is told each epoch (from 1) and its error.
///
/// # Errors
/// Where the network's activation is neither ReLU nor SwiGLU, or the inputs are
/// not finite.
pub fn prune(
    ffn: &mut FeedForward,
    x: &Matrix,
    settings: &Settings,
    observe: impl FnMut(usize, f64),
) -> Result<Outcome> {
    check(ffn)?;
    let (alpha, beta) = (settings.alpha, settings.beta);
    match ffn {
        FeedForward::Mlp { fc1, fc2, .. } => {
            alternate(&Relu { alpha, beta }, &mut [fc1], fc2, x, settings, observe)
        }
        FeedForward::SwiGlu { gate, up, down } => {
            alternate(&SwiGlu { alpha, beta }, &mut [up, gate], down, x, settings, observe)
        }
    }
}

/// Sums over tokens that give the next epoch's weights.
struct Sums {
    /// `aᵀa`.
    aa: Gram,
    /// `(Y − b₂)ᵀ a: [d, d_ff]`.
    ya: Matrix,
    /// `(z − b₁)ᵀ X: [d_ff, d]` per first linear.
    zx: Vec<Matrix>,
}

impl Sums {
    /// Empties the sums, in place.
    fn clear(&mut self, d: usize, d_ff: usize, first: usize) {
        self.aa.clear();
        (self.ya, self.zx) = (Matrix::zeros(0, 0), Vec::new());
        self.ya = Matrix::zeros(d, d_ff);
        self.zx = (0..first).map(|_| Matrix::zeros(d_ff, d)).collect();
    }
}

/// The alternating loop.
fn alternate(
    updates: &impl Updates,
    first: &mut [&mut Linear],
    last: &mut Linear,
    x: &Matrix,
    settings: &Settings,
    mut observe: impl FnMut(usize, f64),
) -> Result<Outcome> {
    let not_finite = "the calibration activations are not finite or all zero";
    let start = Start::new(updates, first, last, x, settings.chunk);
    let Start { mut state, target, norm, xx, aa } = start;
    // X does not change: one factor serves every first linear and every epoch.
    let Some(obs_x) = InverseFactor::new(&xx, settings.damping) else {
        return invalid!("sparsellm: {not_finite}");
    };
    let least_squares_x = (settings.epochs > 1)
        .then(|| CholeskyFactor::of_gram(&xx, LEAST_SQUARES_DAMPING))
        .flatten();
    drop(xx);
    let mut sums = Sums { aa, ya: Matrix::zeros(0, 0), zx: Vec::new() };
    let mut errors = Vec::new();
    let mut best: Option<(usize, f64, Vec<Matrix>, Matrix)> = None;
    for epoch in 1..=settings.epochs.max(1) {
        if epoch > 1 {
            // W̄₁ = (z − b₁)ᵀX (XᵀX + λI)⁻¹,  W̄₂ = (Y − b₂)ᵀa (aᵀa + λI)⁻¹
            let factor_a = CholeskyFactor::of_gram(&sums.aa, LEAST_SQUARES_DAMPING);
            let (Some(factor_x), Some(factor_a)) = (&least_squares_x, factor_a) else { break };
            for (linear, zx) in first.iter_mut().zip(&sums.zx) {
                linear.weight = factor_x.solve_rows(zx.view());
            }
            last.weight = factor_a.solve_rows(sums.ya.view());
        }
        let Some(obs_a) = InverseFactor::new(&sums.aa, settings.damping) else { break };
        for linear in first.iter_mut() {
            sparsegpt::prune(&mut linear.weight, &obs_x, settings.pattern, settings.sweep);
        }
        sparsegpt::prune(&mut last.weight, &obs_a, settings.pattern, settings.sweep);
        drop(obs_a);
        let finite = |w: &Matrix| w.data.iter().all(|v| v.is_finite());
        if !(finite(&last.weight) && first.iter().all(|l| finite(&l.weight))) {
            break;
        }
        let pass = Pass { updates, first, last, x, target: &target, settings };
        let goes_on = epoch < settings.epochs;
        let error = pass.run(&mut state, goes_on.then_some(&mut sums)) / norm;
        errors.push(error);
        observe(epoch, error);
        // The guard: the layer ends with its best iterate.
        if error.is_finite() && best.as_ref().is_none_or(|(_, lowest, ..)| error < *lowest) {
            let weights = first.iter().map(|l| l.weight.clone()).collect();
            best = Some((epoch, error, weights, last.weight.clone()));
        }
    }
    let Some((kept_epoch, _, weights, last_weight)) = best else {
        return invalid!("sparsellm: {not_finite}");
    };
    for (linear, weight) in first.iter_mut().zip(weights) {
        linear.weight = weight;
    }
    last.weight = last_weight;
    Ok(Outcome { errors, kept_epoch })
}

/// Everything at its dense value.
struct Start {
    /// z (and s), `[tokens, d_ff]` each.
    state: Vec<Matrix>,
    /// `Y − b₂`, `[tokens, d]`.
    target: Matrix,
    /// `‖Y‖²`.
    norm: f64,
    xx: Gram,
    aa: Gram,
}

impl Start {
    fn new(
        updates: &impl Updates,
        first: &[&mut Linear],
        last: &Linear,
        x: &Matrix,
        chunk: usize,
    ) -> Start {
        let (d, d_ff) = (last.weight.rows, last.weight.cols);
        let mut start = Start {
            state: first.iter().map(|_| Matrix::zeros(x.rows, d_ff)).collect(),
            target: Matrix::zeros(x.rows, d),
            norm: 0.0,
            xx: Gram::new(x.cols),
            aa: Gram::new(d_ff),
        };
        for rows in chunks(x.rows, chunk) {
            let x = x.rows(rows.clone());
            let pre: Vec<Matrix> = first.iter().map(|l| l.forward(x)).collect();
            let a = phi(updates, &pre);
            let y = matmul_nt(a.view(), last.weight.view());
            start.xx.add(x);
            start.aa.add(a.view());
            for (state, pre) in start.state.iter_mut().zip(&pre) {
                part(state, &rows).copy_from_slice(&pre.data);
            }
            start.norm += y
                .data
                .chunks_exact(d)
                .map(|row| match &last.bias {
                    Some(bias) => squares(row.iter().zip(bias).map(|(y, b)| y + b)),
                    None => squares(row.iter().copied()),
                })
                .sum::<f64>();
            part(&mut start.target, &rows).copy_from_slice(&y.data);
        }
        start.norm = start.norm.max(f64::MIN_POSITIVE);
        start
    }
}

/// One pass over the tokens with an epoch's sparse weights.
struct Pass<'a, 'b, U> {
    updates: &'a U,
    first: &'a [&'b mut Linear],
    last: &'a Linear,
    x: &'a Matrix,
    target: &'a Matrix,
    settings: &'a Settings,
}

impl<U: Updates> Pass<'_, '_, U> {
    /// Returns `‖Y − FFN_sparse(X)‖²`; with `sums`, also makes a, moves z (and
    /// s), and gathers what the next epoch's weights need.
    fn run(&self, state: &mut [Matrix], mut sums: Option<&mut Sums>) -> f64 {
        let (d, d_ff) = (self.last.weight.rows, self.last.weight.cols);
        let mut error = 0.0;
        let solver = sums.as_deref_mut().and_then(|sums| {
            sums.clear(d, d_ff, self.first.len());
            a_solver(&self.last.weight, self.settings.beta / self.settings.alpha)
        });
        for rows in chunks(self.x.rows, self.settings.chunk) {
            let x = self.x.rows(rows.clone());
            let y = self.target.rows(rows.clone());
            let pre: Vec<Matrix> = self.first.iter().map(|l| l.forward(x)).collect();
            let out = matmul_nt(phi(self.updates, &pre).view(), self.last.weight.view());
            error += difference(y, &out);
            let (Some(sums), Some(solver)) = (sums.as_deref_mut(), &solver) else { continue };
            let a = self.update_a(&rows, state, y, solver);
            self.update_state(&rows, state, &a, &pre);
            sums.aa.add(a.view());
            add_matmul_tn(&mut sums.ya, 1.0, y, a.view());
            for ((linear, state), zx) in self.first.iter().zip(state.iter()).zip(&mut sums.zx) {
                let z = state.rows(rows.clone());
                match &linear.bias {
                    None => add_matmul_tn(zx, 1.0, z, x),
                    Some(bias) => {
                        let mut z = z.to_matrix();
                        for row in z.data.chunks_exact_mut(d_ff) {
                            row.iter_mut().zip(bias).for_each(|(z, b)| *z -= b);
                        }
                        add_matmul_tn(zx, 1.0, z.view(), x);
                    }
                }
            }
        }
        error
    }

    /// `a = φ + (y − b₂ − φ W₂ᵀ) (W₂W₂ᵀ + (β/α) I)⁻¹ W₂`, with φ of the current
    /// z (and s). `solver` is `[(W₂W₂ᵀ + (β/α) I)⁻¹ W₂]ᵀ: [d_ff, d]`.
    fn update_a(
        &self,
        rows: &std::ops::Range<usize>,
        state: &[Matrix],
        y: View,
        solver: &Matrix,
    ) -> Matrix {
        let current: Vec<View> = state.iter().map(|s| s.rows(rows.clone())).collect();
        let mut a = phi_of(self.updates, &current);
        let mut residual = matmul_nt(a.view(), self.last.weight.view());
        residual.data.par_iter_mut().zip(y.data).for_each(|(r, y)| *r = y - *r);
        let step = matmul_nt(residual.view(), solver.view());
        a.data.par_iter_mut().zip(&step.data).for_each(|(a, s)| *a += s);
        a
    }

    fn update_state(
        &self,
        rows: &std::ops::Range<usize>,
        state: &mut [Matrix],
        a: &Matrix,
        pre: &[Matrix],
    ) {
        let d_ff = a.cols;
        let update = |t: usize, state: &mut [&mut [f32]]| {
            let pre: Vec<&[f32]> = pre.iter().map(|p| p.row(t)).collect();
            self.updates.update(a.row(t), &pre, state);
        };
        match state {
            [z] => part(z, rows)
                .par_chunks_exact_mut(d_ff)
                .enumerate()
                .for_each(|(t, z)| update(t, &mut [z])),
            [z, s] => part(z, rows)
                .par_chunks_exact_mut(d_ff)
                .zip(part(s, rows).par_chunks_exact_mut(d_ff))
                .enumerate()
                .for_each(|(t, (z, s))| update(t, &mut [z, s])),
            _ => {}
        }
    }
}

/// `[(W₂W₂ᵀ + (β/α) I)⁻¹ W₂]ᵀ: [d_ff, d]`: by the matrix inversion lemma a d×d
/// factor does what a d_ff×d_ff one would.
fn a_solver(w2: &Matrix, ratio: f32) -> Option<Matrix> {
    let mut k = matmul_nt(w2.view(), w2.view());
    k.data.iter_mut().step_by(w2.rows + 1).for_each(|v| *v += ratio);
    Some(CholeskyFactor::new(&k)?.solve_rows(w2.transposed().view()))
}

/// `φ` of whole matrices.
fn phi(updates: &impl Updates, pre: &[Matrix]) -> Matrix {
    phi_of(updates, &pre.iter().map(Matrix::view).collect::<Vec<_>>())
}

fn phi_of(updates: &impl Updates, pre: &[View]) -> Matrix {
    let mut a = Matrix::zeros(pre[0].rows, pre[0].cols);
    a.data.par_chunks_exact_mut(pre[0].cols).enumerate().for_each(|(t, a)| {
        let rows: Vec<&[f32]> = pre.iter().map(|p| p.row(t)).collect();
        updates.phi(&rows, a);
    });
    a
}

/// The ranges of at most `size` that make up `0..n`.
fn chunks(n: usize, size: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let size = size.max(1);
    (0..n).step_by(size).map(move |start| start..(start + size).min(n))
}

fn part<'a>(m: &'a mut Matrix, rows: &std::ops::Range<usize>) -> &'a mut [f32] {
    &mut m.data[rows.start * m.cols..rows.end * m.cols]
}

fn squares(values: impl Iterator<Item = f32>) -> f64 {
    values.map(|v| f64::from(v) * f64::from(v)).sum()
}

/// `‖A − B‖²`.
fn difference(a: View, b: &Matrix) -> f64 {
    a.data
        .chunks(1 << 14)
        .zip(b.data.chunks(1 << 14))
        .map(|(a, b)| squares(a.iter().zip(b).map(|(a, b)| a - b)))
        .sum()
}

//! The passes over the calibration tokens, in chunks: all that the loop needs
//! of them are sums over tokens, so only z (and s) persist between epochs.

use super::{Settings, Updates};
use crate::linalg::{CholeskyFactor, Gram, Matrix, View, add_matmul_tn, matmul_nt};
use crate::model::Linear;
use crate::profile::{Phase, phase};
use rayon::prelude::*;
use std::ops::Range;

/// Sums over tokens that give the next weights.
pub struct Sums {
    /// `aᵀa`.
    pub aa: Gram,
    /// `(T − b₂)ᵀ a: [d, d_ff]`.
    pub ta: Matrix,
    /// `(z − b₁)ᵀ X: [d_ff, d]` per first linear.
    pub zx: Vec<Matrix>,
}

impl Sums {
    /// Empties `aᵀa` and `Tᵀa`, the old making room first.
    fn clear_last(&mut self, d: usize, d_ff: usize) {
        self.aa.clear();
        self.ta = Matrix::zeros(0, 0);
        self.ta = Matrix::zeros(d, d_ff);
    }

    /// Empties `zᵀX`, likewise.
    fn clear_first(&mut self, d: usize, d_ff: usize, first: usize) {
        self.zx = Vec::new();
        self.zx = (0..first).map(|_| Matrix::zeros(d_ff, d)).collect();
    }
}

/// Everything at its dense value.
pub struct Start {
    /// z (and s), `[tokens, d_ff]` each.
    pub state: Vec<Matrix>,
    /// `T − b₂`, `[tokens, d]`.
    pub target: Matrix,
    /// `‖Y‖²`.
    pub norm: f64,
    pub xx: Gram,
    /// Holds `aᵀa`; with the sequential refit nothing yet, as that makes its own.
    pub sums: Sums,
    /// What each row of each first linear is worth, where that is asked for.
    pub neuron_weights: Vec<Option<Vec<f32>>>,
}

impl Start {
    /// Runs the dense network on `x`. The target is its output Y, or where
    /// there is a `reference` R, `T = (1 − λ)Y + λR`.
    pub fn new(
        updates: &impl Updates,
        first: &[&mut Linear],
        last: &Linear,
        x: &Matrix,
        reference: Option<Matrix>,
        settings: &Settings,
    ) -> Start {
        let (d, d_ff) = (last.weight.rows, last.weight.cols);
        let lambda = if reference.is_some() { settings.target } else { 0.0 };
        let mut start = Start {
            state: first.iter().map(|_| Matrix::zeros(x.rows, d_ff)).collect(),
            target: reference.unwrap_or_else(|| Matrix::zeros(x.rows, d)),
            norm: 0.0,
            xx: Gram::new(x.cols),
            sums: Sums { aa: Gram::new(d_ff), ta: Matrix::zeros(0, 0), zx: Vec::new() },
            neuron_weights: vec![None; first.len()],
        };
        let weigh = settings.neuron_weights > 0.0;
        let mut slopes = vec![vec![0.0; if weigh { d_ff } else { 0 }]; first.len()];
        let zero = vec![0.0; d];
        let bias = last.bias.as_deref().unwrap_or(&zero);
        for rows in chunks(x.rows, settings.chunk) {
            let x = x.rows(rows.clone());
            let pre: Vec<Matrix> = first.iter().map(|l| l.forward(x)).collect();
            let a = phi(updates, &pre);
            let y = matmul_nt(a.view(), last.weight.view());
            start.xx.add(x);
            if !settings.sequential_refit {
                start.sums.aa.add(a.view());
            }
            if weigh {
                add_squared_slopes(updates, &pre, &mut slopes);
            }
            for (state, pre) in start.state.iter_mut().zip(&pre) {
                part(state, &rows).copy_from_slice(&pre.data);
            }
            let target = part(&mut start.target, &rows);
            for (t, y) in target.chunks_exact_mut(d).zip(y.data.chunks_exact(d)) {
                start.norm += squares(y.iter().zip(bias).map(|(y, b)| y + b));
                for ((t, y), b) in t.iter_mut().zip(y).zip(bias) {
                    *t = if lambda > 0.0 { (1.0 - lambda) * y + lambda * (*t - b) } else { *y };
                }
            }
        }
        start.norm = start.norm.max(f64::MIN_POSITIVE);
        if weigh {
            let weights = slopes.iter();
            let weights = weights.map(|s| neuron_weights(s, &last.weight, settings.neuron_weights));
            start.neuron_weights = weights.map(Some).collect();
        }
        start
    }
}

/// What an error in neuron i's pre-activation is worth to the network's output,
/// to first order, with an exponent that tempers it:
/// `(Σ_t φ'(t, i)² · ‖W₂,:ᵢ‖²)^(exponent/2)`. `slopes: [d_ff]` is the sum over
/// tokens.
pub fn neuron_weights(slopes: &[f64], w2: &Matrix, exponent: f32) -> Vec<f32> {
    let mut worth = vec![0f64; w2.cols];
    for row in w2.data.chunks_exact(w2.cols.max(1)) {
        worth.iter_mut().zip(row).for_each(|(s, w)| *s += f64::from(w * w));
    }
    worth.iter_mut().zip(slopes).for_each(|(s, slope)| *s *= slope);
    let mean = worth.iter().sum::<f64>() / worth.len().max(1) as f64;
    let scale = if mean > 0.0 { 1.0 / mean } else { 1.0 };
    worth.iter().map(|s| (s * scale).powf(0.5 * f64::from(exponent)) as f32).collect()
}

/// Adds `φ'²`, summed over tokens, per argument of φ and neuron.
fn add_squared_slopes(updates: &impl Updates, pre: &[Matrix], sums: &mut [Vec<f64>]) {
    let (tokens, d_ff) = (pre[0].rows, pre[0].cols);
    let blocks: Vec<Range<usize>> = chunks(tokens, 64).collect();
    let partial = |block: &Range<usize>| {
        let mut sums = vec![vec![0f64; d_ff]; pre.len()];
        let mut slopes = vec![vec![0f32; d_ff]; pre.len()];
        for t in block.clone() {
            let at: Vec<&[f32]> = pre.iter().map(|p| p.row(t)).collect();
            let mut each: Vec<&mut [f32]> = slopes.iter_mut().map(|s| s.as_mut_slice()).collect();
            updates.slopes(&at, &mut each);
            for (sums, slopes) in sums.iter_mut().zip(&slopes) {
                sums.iter_mut().zip(slopes).for_each(|(s, v)| *s += f64::from(v * v));
            }
        }
        sums
    };
    let partials: Vec<Vec<Vec<f64>>> = blocks.par_iter().map(partial).collect();
    for partial in &partials {
        for (sums, more) in sums.iter_mut().zip(partial) {
            sums.iter_mut().zip(more).for_each(|(s, m)| *s += m);
        }
    }
}

/// One pass over the tokens with an epoch's sparse weights.
pub struct Pass<'a, 'b, U> {
    pub updates: &'a U,
    pub first: &'a [&'b mut Linear],
    pub last: &'a Linear,
    pub x: &'a Matrix,
    pub target: &'a Matrix,
    pub settings: &'a Settings,
}

impl<U: Updates> Pass<'_, '_, U> {
    /// Gathers aᵀa and Tᵀa of the activations `a = φ(X W₁ᵀ + b₁)` that the
    /// first linears as they are produce.
    pub fn activations(&self, sums: &mut Sums) {
        sums.clear_last(self.last.weight.rows, self.last.weight.cols);
        for rows in chunks(self.x.rows, self.settings.chunk) {
            let a = phi(self.updates, &self.pre(&rows));
            sums.aa.add(a.view());
            add_product(&mut sums.ta, self.target.rows(rows), a.view());
        }
    }

    /// Returns `‖T − FFN_sparse(X)‖²`; with `sums`, also makes a, moves z (and
    /// s), and gathers what the next epoch's weights need.
    pub fn run(&self, state: &mut [Matrix], mut sums: Option<&mut Sums>) -> f64 {
        let (d, d_ff) = (self.last.weight.rows, self.last.weight.cols);
        let sequential = self.settings.sequential_refit;
        let mut error = 0.0;
        let solver = sums.as_deref_mut().and_then(|sums| {
            sums.clear_first(self.x.cols, d_ff, self.first.len());
            if !sequential {
                sums.clear_last(d, d_ff);
            }
            let ratio = self.settings.beta / self.settings.alpha;
            phase(Phase::A, || a_solver(&self.last.weight, ratio))
        });
        for rows in chunks(self.x.rows, self.settings.chunk) {
            let x = self.x.rows(rows.clone());
            let y = self.target.rows(rows.clone());
            let pre = self.pre(&rows);
            let out = matmul_nt(phi(self.updates, &pre).view(), self.last.weight.view());
            error += difference(y, &out);
            let (Some(sums), Some(solver)) = (sums.as_deref_mut(), &solver) else { continue };
            let a = phase(Phase::A, || self.update_a(&rows, state, y, solver));
            phase(Phase::Z, || self.update_state(&rows, state, &a, &pre));
            if !sequential {
                sums.aa.add(a.view());
                add_product(&mut sums.ta, y, a.view());
            }
            for ((linear, state), zx) in self.first.iter().zip(state.iter()).zip(&mut sums.zx) {
                let z = state.rows(rows.clone());
                match &linear.bias {
                    None => add_product(zx, z, x),
                    Some(bias) => {
                        let mut z = z.to_matrix();
                        for row in z.data.chunks_exact_mut(d_ff) {
                            row.iter_mut().zip(bias).for_each(|(z, b)| *z -= b);
                        }
                        add_product(zx, z.view(), x);
                    }
                }
            }
        }
        error
    }

    /// What the first linears give.
    fn pre(&self, rows: &Range<usize>) -> Vec<Matrix> {
        let x = self.x.rows(rows.clone());
        self.first.iter().map(|l| l.forward(x)).collect()
    }

    /// `a = φ + (y − b₂ − φ W₂ᵀ) (W₂W₂ᵀ + (β/α) I)⁻¹ W₂`, with φ of the current
    /// z (and s). `solver` is `[(W₂W₂ᵀ + (β/α) I)⁻¹ W₂]ᵀ: [d_ff, d]`.
    fn update_a(&self, rows: &Range<usize>, state: &[Matrix], y: View, solver: &Matrix) -> Matrix {
        let current: Vec<View> = state.iter().map(|s| s.rows(rows.clone())).collect();
        let mut a = phi_of(self.updates, &current);
        let mut residual = matmul_nt(a.view(), self.last.weight.view());
        residual.data.par_iter_mut().zip(y.data).for_each(|(r, y)| *r = y - *r);
        let step = matmul_nt(residual.view(), solver.view());
        a.data.par_iter_mut().zip(&step.data).for_each(|(a, s)| *a += s);
        a
    }

    fn update_state(&self, rows: &Range<usize>, state: &mut [Matrix], a: &Matrix, pre: &[Matrix]) {
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

/// `C += AᵀB`, a sum over tokens.
fn add_product(c: &mut Matrix, a: View, b: View) {
    phase(Phase::Gram, || add_matmul_tn(c, 1.0, a, b));
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
fn chunks(n: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    let size = size.max(1);
    (0..n).step_by(size).map(move |start| start..(start + size).min(n))
}

fn part<'a>(m: &'a mut Matrix, rows: &Range<usize>) -> &'a mut [f32] {
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

//! ADMM pruning (Boža, *Fast and Effective Weight Update for Pruned Large Language Models*, TMLR
//! 2024): the weights and the mask of a whole matrix are found together, while the mask grows
//! step by step.

use crate::{Selection, hessian::CholeskyFactor};
use rayon::prelude::*;
use sparsellm_ranks::Communicator;
use sparsellm_tensor::{Matrix, matmul};

/// The number T of steps in which the mask grows to its full size.
const GROWING: usize = 15;
/// The number of steps after that, with the full mask.
const SETTLING: usize = 5;
/// The penalty ρ. The Hessian is normalised to a diagonal of 1, so one value suits all.
const RHO: f32 = 1.0;

/// The form in which the solver uses a Hessian H: features are normalised by `D = diag H`.
#[derive(Clone, Debug)]
pub struct Factor {
    /// `√H_jj`.
    norms: Vec<f32>,
    /// `(D^-½ H D^-½ + ρI)⁻¹`.
    inverse: Matrix,
}

impl Factor {
    /// Prepares the damped Hessian `h: [d, d]`. Returns `None` if it cannot be factored.
    pub fn new(h: &Matrix, ranks: &dyn Communicator) -> Option<Factor> {
        let d = h.rows;
        let norms: Vec<f32> = (0..d).map(|j| h.row(j)[j].sqrt()).collect();
        let normalised = || {
            let mut k = h.clone();
            k.data.par_chunks_mut(d.max(1)).enumerate().for_each(|(i, row)| {
                row.iter_mut().zip(&norms).for_each(|(v, n)| *v /= n * norms[i]);
                row[i] += RHO;
            });
            k
        };
        let inverse = CholeskyFactor::of(normalised, ranks)?.inverse(ranks);
        Some(Factor { norms, inverse })
    }
}

/// Prunes this rank's rows `w: [d_out, d_in]` in place. `b` is `W H` for the weights W before
/// pruning. In normalised features, step t is
///
/// ```text
/// Z ← (W + U)⊙M,   U ← U + W − Z,   W ← (B + ρ(Z − U))(H + ρI)⁻¹
/// ```
///
/// The mask M keeps the largest |W + U|. At step t it removes a share `1 − (1 − t/T)³` of the
/// weights that the pattern removes in the end. The last Z is the result.
pub fn prune(w: &mut Matrix, b: &Matrix, factor: &Factor, selection: &Selection) {
    let d = w.cols;
    let mut b = b.clone();
    scale(&mut b, |v, n| v / n, &factor.norms);
    scale(w, |v, n| v * n, &factor.norms);
    let mut u = Matrix::zeros(w.rows, d);
    let mut gone = Vec::new();
    for step in 1..=GROWING + SETTLING {
        if step <= GROWING {
            let left = 1.0 - step as f64 / GROWING as f64;
            let sums = w.data.par_iter().zip(&u.data);
            let scores = sums.map(|(w, u)| (w + u).abs()).collect();
            gone = selection.mask(scores, d, 1.0 - left * left * left);
        }
        // Stores Z − U with the new U in W: the next step needs Z and U in this form only.
        w.data.par_iter_mut().zip(&mut u.data).zip(&gone).for_each(|((w, u), gone)| {
            let sum = *w + *u;
            (*w, *u) = if *gone { (-sum, sum) } else { (sum, 0.0) };
        });
        if step < GROWING + SETTLING {
            w.data.par_iter_mut().zip(&b.data).for_each(|(w, b)| *w = b + RHO * *w);
            *w = matmul(w.view(), factor.inverse.view());
        }
    }
    w.data.par_iter_mut().zip(&gone).filter(|(_, gone)| **gone).for_each(|(w, _)| *w = 0.0);
    scale(w, |v, n| v / n, &factor.norms);
}

/// Applies `f` to each value and its feature's norm.
fn scale(m: &mut Matrix, f: impl Fn(f32, f32) -> f32 + Sync, norms: &[f32]) {
    m.data.par_chunks_mut(norms.len().max(1)).for_each(|row| {
        row.iter_mut().zip(norms).for_each(|(v, n)| *v = f(*v, *n));
    });
}

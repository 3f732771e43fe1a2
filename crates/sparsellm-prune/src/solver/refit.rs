//! Masked refit: with the mask fixed, the kept weights move towards the least-squares optimum.

use rayon::prelude::*;
use sparsellm_tensor::{Matrix, dot, matmul};

/// Moves the non-zero weights of `w: [d_out, d_in]` towards
///
/// ```text
/// min  tr(Ŵ H Ŵᵀ) − 2 tr(Ŵ Bᵀ)      (Ŵ zero where w is)
/// ```
///
/// by `steps` conjugate-gradient steps per row, preconditioned by `diag H` (which is the same as
/// normalising the features). All rows share one product with `h: [d_in, d_in]` per step. Every
/// step lowers the objective, so any number of steps is safe. `b: [d_out, d_in]` is `W H`, where
/// W is the optimum without a mask.
pub fn refit(w: &mut Matrix, h: &Matrix, b: &Matrix, steps: usize) {
    if steps == 0 || w.data.is_empty() {
        return;
    }
    let d = w.cols;
    let inverse: Vec<f32> = (0..d).map(|j| 1.0 / h.row(j)[j].max(f32::MIN_POSITIVE)).collect();
    // r = (B − W H)⊙mask, z = r/diag H, p = z
    let mut r = matmul(w.view(), h.view());
    let mut p = Matrix::zeros(w.rows, d);
    let mut rz: Vec<f64> = r
        .data
        .par_chunks_mut(d)
        .zip(p.data.par_chunks_mut(d))
        .enumerate()
        .map(|(i, (r, p))| {
            for ((r, b), w) in r.iter_mut().zip(b.row(i)).zip(w.row(i)) {
                *r = if *w == 0.0 { 0.0 } else { b - *r };
            }
            precondition(p, r, &inverse);
            f64::from(dot(r, p))
        })
        .collect();
    for _ in 0..steps {
        let q = matmul(p.view(), h.view());
        let rows = w.data.par_chunks_mut(d).zip(r.data.par_chunks_mut(d));
        rows.zip(p.data.par_chunks_mut(d)).zip(rz.par_iter_mut()).enumerate().for_each(
            |(i, (((w, r), p), rz))| {
                let curvature = f64::from(dot(p, q.row(i)));
                if !(curvature > 0.0 && *rz > 0.0) {
                    return;
                }
                let alpha = (*rz / curvature) as f32;
                for (((w, r), p), q) in w.iter_mut().zip(r.iter_mut()).zip(p.iter()).zip(q.row(i)) {
                    if *w != 0.0 {
                        *r -= alpha * q;
                        let moved = *w + alpha * p;
                        // The support is read from the weights, so a kept one must not become 0.
                        *w = if moved == 0.0 { f32::MIN_POSITIVE } else { moved };
                    }
                }
                let before = *rz;
                *rz = r.iter().zip(&inverse).map(|(r, v)| f64::from(r * r * v)).sum();
                let beta = (*rz / before) as f32;
                for ((p, r), v) in p.iter_mut().zip(r.iter()).zip(&inverse) {
                    *p = r * v + beta * *p;
                }
            },
        );
    }
}

/// `z = r/diag H`, given the inverse of the diagonal.
fn precondition(z: &mut [f32], r: &[f32], inverse: &[f32]) {
    for ((z, r), v) in z.iter_mut().zip(r).zip(inverse) {
        *z = r * v;
    }
}

//! Cholesky factors of damped Gram matrices.

use super::{Gram, Matrix, View};
use faer::{
    MatMut, MatRef, Par, Spec,
    dyn_stack::{MemBuffer, MemStack},
    linalg::{cholesky::llt, triangular_inverse, triangular_solve},
    prelude::ReborrowMut,
};

/// How often the damping is raised tenfold before a factorisation gives up.
const ATTEMPTS: usize = 8;

/// Factors the symmetric matrix `a` (d×d, both triangles) as `LLᵀ`; the result
/// holds L's columns one after another. `None` where it is not positive
/// definite or not finite.
fn cholesky(mut a: Vec<f32>, d: usize) -> Option<Vec<f32>> {
    let view = MatMut::from_column_major_slice_mut(&mut a, d, d);
    let params = Spec::<llt::factor::LltParams, f32>::default();
    let mut buffer =
        MemBuffer::new(llt::factor::cholesky_in_place_scratch::<f32>(d, Par::Seq, params));
    let done = llt::factor::cholesky_in_place(
        view,
        llt::factor::LltRegularization::default(),
        Par::Seq,
        MemStack::new(&mut buffer),
        params,
    );
    let diagonal_ok = (0..d).all(|j| a[j * d + j].is_finite() && a[j * d + j] > 0.0);
    (done.is_ok() && diagonal_ok).then_some(a)
}

/// Factors `a + damping·scale·I`, raising the damping tenfold until it works.
/// Returns the factor and the damping that was used.
fn damped_cholesky(a: &[f32], d: usize, damping: f32, scale: f32) -> Option<(Vec<f32>, f32)> {
    let mut damping = damping;
    for _ in 0..ATTEMPTS {
        let mut damped = a.to_vec();
        damped.iter_mut().step_by(d + 1).for_each(|v| *v += damping * scale);
        if let Some(l) = cholesky(damped, d) {
            return Some((l, damping));
        }
        damping = (damping * 10.0).max(1e-6);
    }
    None
}

/// The factor every OBS solver works from: `U`, upper triangular, with
/// `H⁻¹ = UᵀU` for the damped Hessian `H = (2/n) XᵀX + damping·mean(diag H)·I`.
#[derive(Clone, Debug)]
pub struct InverseFactor {
    /// U, d×d, upper triangular.
    pub u: Matrix,
    /// Features that are zero on every token (`H_jj = 0`).
    pub dead: Vec<bool>,
    /// The relative damping used; more than asked for where the Hessian would
    /// not factor otherwise.
    pub damping: f32,
}

impl InverseFactor {
    /// Builds `U` from the sum `XᵀX`.
    ///
    /// With `P` the reversal of rows and columns, `PHP = LLᵀ ⇒ U = P L⁻¹ P`:
    /// half the flops of Cholesky, inverse, Cholesky, and `H⁻¹` is never
    /// formed. `None` where no damping makes `H` factorable (non-finite data).
    pub fn new(gram: &Gram, damping: f32) -> Option<Self> {
        let d = gram.dim();
        let mut h = gram.scaled(2.0 / gram.tokens.max(1) as f32);
        let dead: Vec<bool> = (0..d).map(|j| h.data[j * d + j] == 0.0).collect();
        for j in (0..d).filter(|&j| dead[j]) {
            h.data[j * d + j] = 1.0;
        }
        let mean = h.data.iter().step_by(d + 1).map(|&v| f64::from(v)).sum::<f64>() / d as f64;
        h.data.reverse(); // PHP: reversing the flat array reverses rows and columns
        let (l, damping) = damped_cholesky(&h.data, d, damping, mean as f32)?;
        let mut inverse = h; // its storage is free now
        inverse.data.fill(0.0);
        triangular_inverse::invert_lower_triangular(
            MatMut::from_column_major_slice_mut(&mut inverse.data, d, d),
            MatRef::from_column_major_slice(&l, d, d),
            Par::Seq,
        );
        inverse.data.reverse();
        let u = inverse.transposed(); // columns to rows
        u.data.iter().all(|v| v.is_finite()).then_some(InverseFactor { u, dead, damping })
    }
}

/// A Cholesky factor `A = LLᵀ`, for least squares and for the a-update.
#[derive(Clone, Debug)]
pub struct CholeskyFactor {
    l: Vec<f32>,
    d: usize,
}

impl CholeskyFactor {
    /// Factors `a + damping·mean(diag a)·I`; the damping is raised where that
    /// fails. `None` where nothing helps.
    pub fn new(a: &Matrix, damping: f32) -> Option<Self> {
        let d = a.rows;
        let trace: f64 = a.data.iter().step_by(d + 1).map(|&v| f64::from(v)).sum();
        let mean = (trace / d.max(1) as f64) as f32;
        let (l, _) = damped_cholesky(&a.data, d, damping, if mean > 0.0 { mean } else { 1.0 })?;
        Some(CholeskyFactor { l, d })
    }

    /// `B A⁻¹` for the rows of `B: [n, d]` (`A` is symmetric, so each row x is
    /// the solution of `A xᵀ = bᵀ`).
    pub fn solve_rows(&self, b: View) -> Matrix {
        use rayon::prelude::*;
        let mut x = b.to_matrix();
        let l = MatRef::from_column_major_slice(&self.l, self.d, self.d);
        let rows = super::panel(x.rows);
        x.data.par_chunks_mut((rows * self.d).max(1)).for_each(|rows| {
            let n = rows.len() / self.d;
            let mut rhs = MatMut::from_column_major_slice_mut(rows, self.d, n);
            triangular_solve::solve_lower_triangular_in_place(l, rhs.rb_mut(), Par::Seq);
            triangular_solve::solve_upper_triangular_in_place(l.transpose(), rhs, Par::Seq);
        });
        x
    }
}

#[cfg(test)]
mod tests {
    use super::super::{matmul, matmul_nt};
    use super::*;

    fn gram(tokens: usize, d: usize) -> Gram {
        let mut rng = rand_mt::Mt::new(7);
        let data = (0..tokens * d).map(|_| rng.next_u32() as f32 / 2f32.powi(31) - 1.0).collect();
        let mut g = Gram::new(d);
        g.add(Matrix::new(tokens, d, data).view());
        g
    }

    #[test]
    fn the_inverse_factor_gives_the_inverse() {
        let g = gram(300, 90);
        let f = InverseFactor::new(&g, 0.01).unwrap();
        let mut h = g.scaled(2.0 / 300.0);
        let mean = h.data.iter().step_by(91).sum::<f32>() / 90.0;
        h.data.iter_mut().step_by(91).for_each(|v| *v += 0.01 * mean);
        let inverse = matmul(f.u.transposed().view(), f.u.view());
        let identity = matmul(h.view(), inverse.view());
        for i in 0..90 {
            for j in 0..90 {
                let want = if i == j { 1.0 } else { 0.0 };
                assert!((identity.row(i)[j] - want).abs() < 1e-4);
                assert!(j >= i || f.u.row(i)[j] == 0.0);
            }
        }
    }

    #[test]
    fn a_singular_hessian_raises_the_damping_instead_of_failing() {
        let mut g = Gram::new(40);
        g.add(Matrix::new(1, 40, (0..40).map(|i| i as f32).collect()).view());
        let f = InverseFactor::new(&g, 0.0).unwrap();
        assert!(f.damping > 0.0);
        assert!(f.dead[0] && !f.dead[1]);
    }

    #[test]
    fn solving_undoes_multiplying() {
        let a = gram(200, 50).scaled(0.01);
        let x = Matrix::new(3, 50, (0..150).map(|i| (i as f32).cos()).collect());
        let b = matmul_nt(x.view(), a.view());
        let solved = CholeskyFactor::new(&a, 0.0).unwrap().solve_rows(b.view());
        for (s, w) in solved.data.iter().zip(&x.data) {
            assert!((s - w).abs() < 1e-3);
        }
    }
}

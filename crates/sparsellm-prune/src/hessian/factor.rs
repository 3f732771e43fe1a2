//! Cholesky factors of damped Gram matrices.

use super::{
    gram::Gram,
    spread::{Block, exchange, on_rows, owner},
};
use faer::{
    Accum, Mat, MatMut, MatRef, Par, Spec,
    dyn_stack::{MemBuffer, MemStack},
    linalg::{cholesky::llt, triangular_solve},
    prelude::ReborrowMut,
};
use rayon::prelude::*;
use sparsellm_ranks::Communicator;
use sparsellm_tensor::profile::{self, Phase, phase};
use sparsellm_tensor::{Matrix, View, matmul, matmul_nt, panel_rows};
use std::ops::Range;

/// The number of dampings, each ten times the last, that a factorisation tries before it gives up.
const ATTEMPTS: usize = 8;

/// The number of rows that one task factors, or solves for, at a time.
fn block(d: usize) -> usize {
    d.div_ceil(12).next_multiple_of(32).clamp(32, 256)
}

/// Factors the symmetric matrix `a` (d×d, given by its lower triangle) as `LLᵀ`; L replaces the
/// lower triangle. Returns `None` if the matrix is not positive definite or not finite.
///
/// It goes by blocks of columns K: `L_KK = chol(A_KK)`, `L_IK = A_IK L_KK⁻ᵀ` for the rows I below,
/// and `A_IJ ← A_IJ − L_IK L_JKᵀ` for the columns J to the right. Ranks take the blocks of rows in
/// turn, and exchange the columns L_IK of each step, which all of them need.
fn cholesky(mut a: Vec<f32>, d: usize, ranks: &dyn Communicator) -> Option<Vec<f32>> {
    profile::count(d * d * d / 3 / ranks.size(), d * (d + 1));
    let size = block(d);
    let mut panel = vec![0.0; size * d];
    for (k, start) in (0..d).step_by(size).enumerate() {
        let n = size.min(d - start);
        let diagonal = &mut a[start * d..(start + n) * d];
        factor_block(diagonal, start, n, d, owner(ranks, k), ranks)?;
        let (above, below) = a.split_at_mut((start + n) * d);
        let l = MatRef::from_row_major_slice(&above[start * d..], n, d).subcols(start, n);
        let height = below.len() / d;
        let mine: Vec<bool> =
            (0..height.div_ceil(size)).map(|i| owner(ranks, k + 1 + i) == ranks.rank()).collect();
        below.par_chunks_mut(size * d).zip(&mine).filter(|(_, mine)| **mine).for_each(
            |(rows, _)| {
                let m = rows.len() / d;
                let rows = MatMut::from_row_major_slice_mut(rows, m, d);
                triangular_solve::solve_lower_triangular_in_place(
                    l,
                    rows.subcols_mut(start, n).transpose_mut(),
                    Par::Seq,
                );
            },
        );
        let blocks = blocks(height, size, |_| start..start + n);
        exchange(ranks, below, d, k + 1, &blocks);
        let panel = &mut panel[..height * n];
        let rows = below.par_chunks(d).map(|row| &row[start..start + n]);
        panel.par_chunks_mut(n).zip(rows).for_each(|(panel, row)| panel.copy_from_slice(row));
        let panel = MatRef::from_row_major_slice(panel, height, n);
        below
            .par_chunks_mut(size * d)
            .zip(&mine)
            .enumerate()
            .filter(|(_, (_, mine))| **mine)
            .for_each(|(i, (rows, _))| {
                let (first, m) = (i * size, rows.len() / d);
                let rows = MatMut::from_row_major_slice_mut(rows, m, d);
                faer::linalg::matmul::matmul(
                    rows.subcols_mut(start + n, first + m),
                    Accum::Add,
                    panel.subrows(first, m),
                    panel.subrows(0, first + m).transpose(),
                    -1.0,
                    Par::Seq,
                );
            });
    }
    Some(a)
}

/// Splits `rows` into blocks of `size` rows. `cols` maps the row at which a block ends to the
/// block's columns.
fn blocks(rows: usize, size: usize, cols: impl Fn(usize) -> Range<usize>) -> Vec<Block> {
    let block = |first: usize| {
        let end = (first + size).min(rows);
        Block { rows: first..end, cols: cols(end) }
    };
    (0..rows).step_by(size).map(block).collect()
}

/// Factors the n×n block at column `start` of the `rows` that contain it. The rank that computed
/// the block factors it and sends the result to all ranks.
fn factor_block(
    rows: &mut [f32],
    start: usize,
    n: usize,
    d: usize,
    owner: usize,
    ranks: &dyn Communicator,
) -> Option<()> {
    let mut block = Mat::from_fn(n, n, |i, j| rows[i * d + start + j]);
    if ranks.rank() == owner && !llt(block.as_mut()) {
        block[(0, 0)] = f32::NAN;
    }
    let mut lower: Vec<f32> =
        (0..n).flat_map(|i| (0..=i).map(move |j| (i, j))).map(|at| block[at]).collect();
    ranks.broadcast(owner, bytemuck::cast_slice_mut(&mut lower));
    let mut from = &lower[..];
    for i in 0..n {
        let (row, rest) = from.split_at(i + 1);
        rows[i * d + start..][..=i].copy_from_slice(row);
        from = rest;
    }
    (!lower[0].is_nan()).then_some(())
}

/// Factors a block in place. Returns false if it is not positive definite or not finite.
fn llt(mut block: MatMut<f32>) -> bool {
    let n = block.nrows();
    let params = Spec::<llt::factor::LltParams, f32>::default();
    let scratch = llt::factor::cholesky_in_place_scratch::<f32>(n, Par::Seq, params);
    let done = llt::factor::cholesky_in_place(
        block.rb_mut(),
        llt::factor::LltRegularization::default(),
        Par::Seq,
        MemStack::new(&mut MemBuffer::new(scratch)),
        params,
    );
    let positive = |i: usize| block[(i, i)].is_finite() && block[(i, i)] > 0.0;
    done.is_ok() && (0..n).all(positive)
}

/// `L⁻¹` for the lower triangle L of `l`. Row i of the inverse solves `x L = eᵢ`, which involves
/// only the first i rows of L. Ranks take blocks of rows in turn.
fn inverse_of_lower(l: &[f32], d: usize, ranks: &dyn Communicator) -> Matrix {
    profile::count(d * d * d / 3 / ranks.size(), d * (d + 1));
    let size = block(d);
    let l = MatRef::from_row_major_slice(l, d, d);
    let mut inverse = Matrix::zeros(d, d);
    let (rank, owner) = (ranks.rank(), |i| owner(ranks, i));
    let mine: Vec<bool> = (0..d.div_ceil(size)).map(|i| owner(i) == rank).collect();
    let rows = inverse.data.par_chunks_mut((size * d).max(1)).enumerate();
    rows.filter(|(i, _)| mine[*i]).for_each(|(i, rows)| {
        let (first, n) = (i * size, rows.len() / d);
        rows.iter_mut().skip(first).step_by(d + 1).for_each(|v| *v = 1.0);
        let x = MatMut::from_row_major_slice_mut(rows, n, d).subcols_mut(0, first + n);
        let l = l.submatrix(0, 0, first + n, first + n);
        triangular_solve::solve_upper_triangular_in_place(
            l.transpose(),
            x.transpose_mut(),
            Par::Seq,
        );
    });
    exchange(ranks, &mut inverse.data, d, 0, &blocks(d, size, |end| 0..end));
    inverse
}

/// The next damping to try: ten times as much, computed in decimal so that 0.01 becomes 0.1 and
/// not 0.099999994.
pub fn raised_damping(damping: f32) -> f32 {
    let tenfold = format!("{damping}e1").parse().unwrap_or(damping * 10.0);
    tenfold.max(1e-6)
}

/// Factors `a() + damping·scale·I`, raising the damping tenfold until that succeeds. Each attempt
/// calls `a` again, so that there is never a second copy of the matrix. Returns the factor and
/// the damping that was used.
fn damped_cholesky(
    a: impl Fn() -> Matrix,
    damping: f32,
    scale: f32,
    ranks: &dyn Communicator,
) -> Option<(Vec<f32>, f32)> {
    let mut damping = damping;
    for _ in 0..ATTEMPTS {
        let mut damped = a();
        let d = damped.rows;
        damped.data.iter_mut().step_by(d + 1).for_each(|v| *v += damping * scale);
        if let Some(l) = cholesky(damped.data, d, ranks) {
            return Some((l, damping));
        }
        damping = raised_damping(damping);
    }
    None
}

/// The factor that the OBS solver uses: the upper triangular `U` with `H⁻¹ = UᵀU` for the damped Hessian `H = (2/n) XᵀX + damping·mean(diag H)·I`.
#[derive(Clone, Debug)]
pub struct InverseFactor {
    /// U, d×d, upper triangular.
    pub u: Matrix,
    /// Whether each feature is dead, that is zero on every token (`H_jj = 0`), `[d]`.
    pub dead: Vec<bool>,
    /// The relative damping that was used; it is larger than requested if the Hessian could not
    /// be factored otherwise.
    pub damping: f32,
    /// `mean(diag H)` before damping; the damping in H's own units is `damping·mean`.
    pub mean: f32,
}

impl InverseFactor {
    /// Builds `U` from the sum `XᵀX`. Returns `None` if no damping makes `H` factorable, because
    /// it is not finite.
    ///
    /// With `P` the reversal of rows and columns, `PHP = LLᵀ ⇒ U = P L⁻¹ P`. This takes half the
    /// flops of Cholesky, inverse and Cholesky, and never forms `H⁻¹`.
    pub fn new(gram: &Gram, damping: f32, ranks: &dyn Communicator) -> Option<Self> {
        let (d, scale) = (gram.dim(), 2.0 / gram.tokens.max(1) as f32);
        let mut diagonal: Vec<f32> = gram.diagonal().iter().map(|v| v * scale).collect();
        let dead: Vec<bool> = diagonal.iter().map(|&v| v == 0.0).collect();
        diagonal.iter_mut().filter(|v| **v == 0.0).for_each(|v| *v = 1.0);
        let mean = diagonal.iter().map(|&v| f64::from(v)).sum::<f64>() / d.max(1) as f64;
        let reversed = || {
            let mut h = gram.scaled(scale);
            h.data.iter_mut().step_by(d + 1).zip(&diagonal).for_each(|(h, v)| *h = *v);
            h.data.reverse(); // PHP: reversing the flat array reverses rows and columns
            h
        };
        let (l, damping) = damped_cholesky(reversed, damping, mean as f32, ranks)?;
        let mut u = inverse_of_lower(&l, d, ranks);
        drop(l);
        u.data.reverse();
        u.data.iter().all(|v| v.is_finite()).then_some(InverseFactor {
            u,
            dead,
            damping,
            mean: mean as f32,
        })
    }

    /// The damped Hessian that this is the factor of, given the `gram` that it was built from.
    pub fn hessian(&self, gram: &Gram) -> Matrix {
        let d = gram.dim();
        let mut h = gram.scaled(2.0 / gram.tokens.max(1) as f32);
        for (j, dead) in self.dead.iter().enumerate() {
            let v = &mut h.data[j * d + j];
            *v = if *dead { 1.0 } else { *v } + self.damping * self.mean;
        }
        h
    }

    /// Zeroes the weights of dead features, which contribute nothing to the output.
    pub fn kill(&self, w: &mut Matrix) {
        for row in w.data.chunks_exact_mut(self.dead.len().max(1)) {
            row.iter_mut().zip(&self.dead).filter(|(_, dead)| **dead).for_each(|(v, _)| *v = 0.0);
        }
    }

    /// The least-squares weights that map X to targets T, held to `w: [d_out, d_in]` by the
    /// damping λ: `W̄ = ((2/n) TᵀX + λW) H⁻¹`, with `tx = TᵀX` and `H⁻¹ = UᵀU`. Each row can be
    /// solved by itself, so `tx` and `w` may hold some of the rows.
    pub fn least_squares(&self, tx: View, tokens: usize, w: View) -> Matrix {
        let (scale, ridge) = (2.0 / tokens.max(1) as f32, self.damping * self.mean);
        let mut b = tx.to_matrix();
        b.data.par_iter_mut().zip(w.data).for_each(|(b, w)| *b = scale * *b + ridge * w);
        matmul(matmul_nt(b.view(), self.u.view()).view(), self.u.view())
    }
}

/// A Cholesky factor `A = LLᵀ`, used for least squares and for the a-update.
#[derive(Clone, Debug)]
pub struct CholeskyFactor {
    l: Vec<f32>,
    d: usize,
    /// The relative damping that was used; it is larger than requested if the matrix could not
    /// be factored otherwise.
    pub damping: f32,
}

impl CholeskyFactor {
    /// Factors the symmetric matrix that `a` returns, raising its diagonal a little if need be.
    /// Each attempt calls `a` again, so that there is never a second copy of the matrix. Returns
    /// `None` if the matrix is not positive definite even so.
    pub fn of(a: impl Fn() -> Matrix, ranks: &dyn Communicator) -> Option<Self> {
        let (l, damping) = damped_cholesky(a, 0.0, 1.0, ranks)?;
        let d = l.len().isqrt();
        Some(CholeskyFactor { l, d, damping })
    }

    /// Factors `G + damping·mean(diag G)·I` for a Gram matrix G, raising the damping if that
    /// fails. Returns `None` if no damping helps, because G is not finite.
    pub fn of_gram(gram: &Gram, damping: f32, ranks: &dyn Communicator) -> Option<Self> {
        phase(Phase::Factor, || Self::of_damped(gram, damping, ranks))
    }

    fn of_damped(gram: &Gram, damping: f32, ranks: &dyn Communicator) -> Option<Self> {
        let mean = gram.diagonal().iter().map(|&v| f64::from(v)).sum::<f64>();
        let mean = (mean / gram.dim().max(1) as f64) as f32;
        let scale = if mean > 0.0 { mean } else { 1.0 };
        let (l, damping) = damped_cholesky(|| gram.scaled(1.0), damping, scale, ranks)?;
        Some(CholeskyFactor { l, d: gram.dim(), damping })
    }

    /// `B A⁻¹` for `B: [n, d]`. As `A` is symmetric, each row x solves `A xᵀ = bᵀ`.
    pub fn solve_rows(&self, b: View) -> Matrix {
        let mut x = b.to_matrix();
        self.solve_in_place(&mut x);
        x
    }

    /// `A⁻¹`.
    pub fn inverse(&self, ranks: &dyn Communicator) -> Matrix {
        let mut x = Matrix::zeros(self.d, self.d);
        x.data.iter_mut().step_by(self.d + 1).for_each(|v| *v = 1.0);
        on_rows(ranks, &mut x, |x, _| self.solve_in_place(x));
        x
    }

    /// Replaces the rows of B by those of `B A⁻¹`, as [`solve_rows`](Self::solve_rows) does.
    pub fn solve_in_place(&self, x: &mut Matrix) {
        let l = MatRef::from_row_major_slice(&self.l, self.d, self.d);
        profile::count(
            2 * x.rows * self.d * self.d,
            2 * x.rows * self.d + self.d * (self.d + 1) / 2,
        );
        let rows = panel_rows(x.rows);
        x.data.par_chunks_mut((rows * self.d).max(1)).for_each(|rows| {
            let n = rows.len() / self.d;
            let mut rhs = MatMut::from_column_major_slice_mut(rows, self.d, n);
            triangular_solve::solve_lower_triangular_in_place(l, rhs.rb_mut(), Par::Seq);
            triangular_solve::solve_upper_triangular_in_place(l.transpose(), rhs, Par::Seq);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sparsellm_ranks::Local;

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
        let f = InverseFactor::new(&g, 0.01, &Local).unwrap();
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
        let f = InverseFactor::new(&g, 0.0, &Local).unwrap();
        assert!(f.damping > 0.0);
        assert!(f.dead[0] && !f.dead[1]);
    }

    #[test]
    fn solving_undoes_multiplying() {
        let a = gram(200, 50).scaled(0.01);
        let x = Matrix::new(3, 50, (0..150).map(|i| (i as f32).cos()).collect());
        let b = matmul_nt(x.view(), a.view());
        let solved = CholeskyFactor::of(|| a.clone(), &Local).unwrap().solve_rows(b.view());
        for (s, w) in solved.data.iter().zip(&x.data) {
            assert!((s - w).abs() < 1e-3);
        }
    }
}

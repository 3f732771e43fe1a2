//! Dense f32 linear algebra: the few operations that pruning needs, thin over
//! [faer].
//!
//! Everything is row-major. Work is cut into pieces whose number depends only
//! on the shapes, each done sequentially, so that results are the same bytes
//! for any number of threads.

mod factor;
mod kernels;
mod sparse;
mod tiles;

pub use factor::{CholeskyFactor, InverseFactor, raised};
pub use kernels::{dot, exp_shifted, exp_sum, gelu, relu, silu, silu_grad, vectorized};
pub use sparse::SparseWeights;
pub use tiles::{TILE, tile_matmul_nt, tiles};

use crate::profile::{self, Phase, phase};
use faer::{
    Accum, Mat, MatMut, MatRef, Par,
    linalg::matmul::{self, triangular::BlockStructure},
};
use rayon::prelude::*;

/// A row-major f32 matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// The entries, row after row (`rows * cols` of them).
    pub data: Vec<f32>,
}

impl Matrix {
    /// A matrix of zeros.
    pub fn zeros(rows: usize, cols: usize) -> Self {
        Matrix { rows, cols, data: vec![0.0; rows * cols] }
    }

    /// Wraps `data`, which must hold `rows * cols` entries.
    pub fn new(rows: usize, cols: usize, data: Vec<f32>) -> Self {
        debug_assert_eq!(data.len(), rows * cols);
        Matrix { rows, cols, data }
    }

    /// Row `i`.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.data[i * self.cols..(i + 1) * self.cols]
    }

    /// Row `i`, to be changed.
    pub fn row_mut(&mut self, i: usize) -> &mut [f32] {
        &mut self.data[i * self.cols..(i + 1) * self.cols]
    }

    /// The whole matrix, borrowed.
    pub fn view(&self) -> View<'_> {
        View { rows: self.rows, cols: self.cols, data: &self.data }
    }

    /// Rows `range`, borrowed.
    pub fn rows(&self, range: std::ops::Range<usize>) -> View<'_> {
        View {
            rows: range.len(),
            cols: self.cols,
            data: &self.data[range.start * self.cols..range.end * self.cols],
        }
    }

    /// The transpose.
    pub fn transposed(&self) -> Matrix {
        const TILE: usize = 32;
        let (n, m) = (self.rows, self.cols);
        let mut t = Matrix::zeros(m, n);
        t.data.par_chunks_mut((TILE * n).max(1)).enumerate().for_each(|(tile, out)| {
            let first = tile * TILE;
            for i0 in (0..n).step_by(TILE) {
                let end = (i0 + TILE).min(n);
                for (j, row) in out.chunks_exact_mut(n).enumerate() {
                    for (i, v) in (i0..end).zip(&mut row[i0..end]) {
                        *v = self.data[i * m + first + j];
                    }
                }
            }
        });
        t
    }
}

/// Some consecutive rows of a row-major matrix.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// The entries, row after row.
    pub data: &'a [f32],
}

impl<'a> View<'a> {
    /// Rows of `cols` entries each.
    pub fn new(data: &'a [f32], cols: usize) -> View<'a> {
        View { rows: data.len() / cols.max(1), cols, data }
    }

    /// Row `i`.
    pub fn row(&self, i: usize) -> &'a [f32] {
        &self.data[i * self.cols..(i + 1) * self.cols]
    }

    /// Rows `range`.
    pub fn rows(&self, range: std::ops::Range<usize>) -> View<'a> {
        View {
            rows: range.len(),
            cols: self.cols,
            data: &self.data[range.start * self.cols..range.end * self.cols],
        }
    }

    /// A copy that owns its entries.
    pub fn to_matrix(&self) -> Matrix {
        Matrix::new(self.rows, self.cols, self.data.to_vec())
    }

    fn faer(&self) -> MatRef<'a, f32> {
        MatRef::from_row_major_slice(self.data, self.rows, self.cols)
    }
}

/// Rows per piece of a product with `rows` rows: enough pieces to share out,
/// each large enough for its product to run at full speed.
fn panel(rows: usize) -> usize {
    rows.div_ceil(16).next_multiple_of(32).clamp(96, 512)
}

/// The same for a Gram matrix, whose pieces differ in their work.
fn gram_panel(d: usize) -> usize {
    d.div_ceil(12).next_multiple_of(64).clamp(64, 512)
}

/// `C = A Bᵀ`: `A: [n, k]`, `B: [m, k]`, `C: [n, m]`. This is a linear layer
/// without its bias.
pub fn matmul_nt(a: View, b: View) -> Matrix {
    let mut c = Matrix::zeros(a.rows, b.rows);
    matmul_into(&mut c, false, 1.0, a.faer(), b.faer().transpose());
    c
}

/// `C = A B`: `A: [n, k]`, `B: [k, m]`, `C: [n, m]`.
pub fn matmul(a: View, b: View) -> Matrix {
    let mut c = Matrix::zeros(a.rows, b.cols);
    matmul_into(&mut c, false, 1.0, a.faer(), b.faer());
    c
}

/// `C += α Aᵀ B`: `A: [t, n]`, `B: [t, m]`, `C: [n, m]`; a sum over tokens.
pub fn add_matmul_tn(c: &mut Matrix, alpha: f32, a: View, b: View) {
    matmul_into(c, true, alpha, a.faer().transpose(), b.faer());
}

/// `C = [C +] α A B`, by row panels.
fn matmul_into(c: &mut Matrix, add: bool, alpha: f32, a: MatRef<f32>, b: MatRef<f32>) {
    debug_assert!(c.rows == a.nrows() && a.ncols() == b.nrows() && c.cols == b.ncols());
    let (rows, cols) = (panel(c.rows), c.cols);
    if cols == 0 {
        return;
    }
    let (n, k) = (c.rows, a.ncols());
    profile::count(2 * n * k * cols, n * k + k * cols + n * cols);
    let accum = if add { Accum::Add } else { Accum::Replace };
    c.data.par_chunks_mut(rows * cols).enumerate().for_each(|(i, out)| {
        let n = out.len() / cols;
        let out = MatMut::from_row_major_slice_mut(out, n, cols);
        let a = a.subrows(i * rows, n);
        matmul::matmul(out, accum, a, b, alpha, Par::Seq);
    });
}

/// `C[:, c0..] -= A B[:, c0..]` with `A: [n, k]`, `B: [k, m]`, `C: [n, m]`: the
/// lazy update of the columns right of a block in the OBS sweep.
pub fn sub_matmul_right_of(c: &mut Matrix, c0: usize, a: View, b: View) {
    let (rows, cols) = (panel(c.rows), c.cols);
    if c0 >= cols {
        return;
    }
    let (n, k, m) = (c.rows, a.cols, cols - c0);
    profile::count(2 * n * k * m, n * k + k * m + 2 * n * m);
    let (a, b) = (a.faer(), b.faer().subcols(c0, m));
    c.data.par_chunks_mut(rows * cols).enumerate().for_each(|(i, out)| {
        let n = out.len() / cols;
        let out = MatMut::from_row_major_slice_mut(out, n, cols).subcols_mut(c0, m);
        matmul::matmul(out, Accum::Add, a.subrows(i * rows, n), b, -1.0, Par::Seq);
    });
}

/// A Gram matrix `G = XᵀX`, summed over chunks of tokens; only the lower
/// triangle is computed (half the flops of the full product).
#[derive(Clone, Debug)]
pub struct Gram {
    lower: Matrix,
    /// Number of tokens (rows of X) summed so far.
    pub tokens: usize,
}

impl Gram {
    /// The empty sum for inputs of `d` features.
    pub fn new(d: usize) -> Self {
        Gram { lower: Matrix::zeros(d, d), tokens: 0 }
    }

    /// The Gram matrix of the columns of `x`, which are no tokens.
    pub fn of(x: View) -> Self {
        let mut gram = Gram::new(x.cols);
        gram.add_product(x.faer());
        gram
    }

    /// `G += XᵀX` for `X: [tokens, d]`.
    pub fn add(&mut self, x: View) {
        let d = self.lower.cols;
        debug_assert_eq!(x.cols, d);
        self.tokens += x.rows;
        phase(Phase::Gram, || self.add_product(x.faer()));
    }

    fn add_product(&mut self, x: MatRef<f32>) {
        let d = self.lower.cols;
        profile::count(x.nrows() * d * (d + 1), x.nrows() * d + d * (d + 1));
        let rows = gram_panel(d);
        self.lower.data.par_chunks_mut(rows * d).enumerate().for_each(|(i, out)| {
            let (n, first) = (out.len() / d, i * rows);
            let out = MatMut::from_row_major_slice_mut(out, n, d);
            let (left, right) = out.split_at_col_mut(first);
            let xt = x.subcols(first, n).transpose();
            if first > 0 {
                matmul::matmul(left, Accum::Add, xt, x.subcols(0, first), 1.0, Par::Seq);
            }
            matmul::triangular::matmul(
                right.subcols_mut(0, n),
                BlockStructure::TriangularLower,
                Accum::Add,
                xt,
                BlockStructure::Rectangular,
                xt.transpose(),
                BlockStructure::Rectangular,
                1.0,
                Par::Seq,
            );
        });
    }

    /// Number of features d.
    pub fn dim(&self) -> usize {
        self.lower.cols
    }

    /// The diagonal: `‖X_j‖²` per feature.
    pub fn diagonal(&self) -> Vec<f32> {
        (0..self.dim()).map(|j| self.lower.data[j * self.dim() + j]).collect()
    }

    /// The full symmetric matrix times `scale`.
    pub fn scaled(&self, scale: f32) -> Matrix {
        const TILE: usize = 32;
        let d = self.dim();
        let mut full = Matrix::zeros(d, d);
        full.data.par_chunks_mut((TILE * d).max(1)).enumerate().for_each(|(tile, rows)| {
            let first = tile * TILE;
            for j0 in (0..d).step_by(TILE) {
                for (i, row) in (first..).zip(rows.chunks_exact_mut(d)) {
                    for (j, v) in (j0..).zip(&mut row[j0..(j0 + TILE).min(d)]) {
                        *v = scale * self.lower.data[if j <= i { i * d + j } else { j * d + i }];
                    }
                }
            }
        });
        full
    }

    /// `tr(W G Wᵀ) = ‖X Wᵀ‖²`, the energy of the outputs of `w: [d_out, d]`.
    /// With L the lower triangle of G, `G = L + Lᵀ − diag G`, so that `W L`, half
    /// of the product, is enough.
    pub fn energy(&self, w: &Matrix) -> f64 {
        let d = self.dim();
        let values = 2 * w.data.len() + d * (d + 1) / 2;
        profile::count(w.data.len() * (d + 1), values);
        let rows = panel(w.rows);
        let parts: Vec<f64> =
            w.data.par_chunks((rows * d).max(1)).map(|w| self.energy_of_rows(w)).collect();
        parts.iter().sum()
    }

    /// The energy of some rows of W, by blocks of L's columns.
    fn energy_of_rows(&self, w: &[f32]) -> f64 {
        const BLOCK: usize = 256;
        let d = self.dim();
        let n = w.len() / d;
        let w = MatRef::from_row_major_slice(w, n, d);
        let lower = MatRef::from_row_major_slice(&self.lower.data, d, d);
        let mut energy = 0.0;
        for start in (0..d).step_by(BLOCK) {
            let (size, end) = (BLOCK.min(d - start), (start + BLOCK).min(d));
            // The diagonal of G stands once in the sum, all else twice.
            let diagonal = |i, j| match start + i {
                _ if i < j => 0.0,
                at if i == j => 0.5 * lower[(at, at)],
                at => lower[(at, start + j)],
            };
            let diagonal = Mat::from_fn(size, size, diagonal);
            let mut wl = Mat::zeros(n, size);
            let part = w.subcols(start, size);
            matmul::matmul(&mut wl, Accum::Replace, part, &diagonal, 2.0, Par::Seq);
            let (below, right) =
                (lower.submatrix(end, start, d - end, size), w.subcols(end, d - end));
            matmul::matmul(&mut wl, Accum::Add, right, below, 2.0, Par::Seq);
            for j in 0..size {
                let products = (0..n).map(|i| f64::from(wl[(i, j)]) * f64::from(part[(i, j)]));
                energy += products.sum::<f64>();
            }
        }
        energy
    }

    /// Forgets every token.
    pub fn clear(&mut self) {
        self.lower.data.fill(0.0);
        self.tokens = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arbitrary(rows: usize, cols: usize, seed: u32) -> Matrix {
        let mut rng = rand_mt::Mt::new(seed);
        let data = (0..rows * cols).map(|_| rng.next_u32() as f32 / 2f32.powi(31) - 1.0).collect();
        Matrix::new(rows, cols, data)
    }

    fn naive(a: &Matrix, b: &Matrix) -> Matrix {
        let mut c = Matrix::zeros(a.rows, b.cols);
        for i in 0..a.rows {
            for j in 0..b.cols {
                c.data[i * b.cols + j] = (0..a.cols)
                    .map(|k| f64::from(a.row(i)[k]) * f64::from(b.row(k)[j]))
                    .sum::<f64>() as f32;
            }
        }
        c
    }

    fn close(a: &Matrix, b: &Matrix) {
        assert_eq!((a.rows, a.cols), (b.rows, b.cols));
        for (x, y) in a.data.iter().zip(&b.data) {
            assert!((x - y).abs() <= 1e-4 * (1.0 + y.abs()), "{x} {y}");
        }
    }

    #[test]
    fn products_agree_with_the_definition() {
        for (n, k, m) in [(1, 1, 1), (3, 17, 5), (130, 33, 70), (600, 40, 9)] {
            let (a, b) = (arbitrary(n, k, 1), arbitrary(k, m, 2));
            let c = naive(&a, &b);
            close(&matmul(a.view(), b.view()), &c);
            close(&matmul_nt(a.view(), b.transposed().view()), &c);
            let mut sum = c.clone();
            add_matmul_tn(&mut sum, 2.0, a.transposed().view(), b.view());
            close(&sum, &Matrix::new(n, m, c.data.iter().map(|v| 3.0 * v).collect()));
        }
    }

    #[test]
    fn a_gram_matrix_is_the_sum_over_chunks() {
        let x = arbitrary(100, 150, 3);
        let mut g = Gram::new(150);
        g.add(x.rows(0..37));
        g.add(x.rows(37..100));
        close(&g.scaled(0.5), &{
            let mut c = naive(&x.transposed(), &x);
            c.data.iter_mut().for_each(|v| *v *= 0.5);
            c
        });
        assert_eq!(g.tokens, 100);
    }

    #[test]
    fn the_energy_is_that_of_the_outputs() {
        let (x, w) = (arbitrary(70, 45, 8), arbitrary(37, 45, 9));
        let mut g = Gram::new(45);
        g.add(x.view());
        let outputs = naive(&x, &w.transposed());
        let want: f64 = outputs.data.iter().map(|v| f64::from(*v).powi(2)).sum();
        assert!((g.energy(&w) / want - 1.0).abs() < 1e-5);
    }

    #[test]
    fn results_do_not_depend_on_the_number_of_threads() {
        let (a, b) = (arbitrary(301, 257, 4), arbitrary(257, 190, 5));
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut g = Gram::new(257);
                g.add(a.view());
                (matmul(a.view(), b.view()).data, g.scaled(1.0).data)
            })
        };
        assert_eq!(run(1), run(3));
    }
}

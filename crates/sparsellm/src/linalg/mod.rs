//! Dense f32 linear algebra: the few operations that pruning needs, thin over
//! [faer].
//!
//! Everything is row-major. Work is cut into pieces whose number depends only
//! on the shapes, each done sequentially, so that results are the same bytes
//! for any number of threads.

mod factor;
mod gram;
mod kernels;
mod sparse;
mod spread;
mod tiles;

pub use factor::{CholeskyFactor, InverseFactor, raised};
pub use gram::{CrossGram, Gram};
pub use kernels::{dot, exp_shifted, exp_sum, gelu, relu, silu, silu_grad, vectorized};
pub use sparse::SparseWeights;
pub use spread::{on_rows, rows_of};
pub use tiles::{TILE, tile_matmul_nt, tiles};

use crate::profile;
use faer::{Accum, MatMut, MatRef, Par, linalg::matmul};
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

    /// Replaces the rows from `first` on by `rows`.
    pub fn set_rows(&mut self, first: usize, rows: &Matrix) {
        let at = first * self.cols;
        self.data[at..at + rows.data.len()].copy_from_slice(&rows.data);
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

/// `C = A Bᵀ`: `A: [n, k]`, `B: [m, k]`, `C: [n, m]`. This is a linear layer
/// without its bias.
pub fn matmul_nt(a: View, b: View) -> Matrix {
    let mut c = Matrix::zeros(a.rows, b.rows);
    matmul_into(&mut c, a.faer(), b.faer().transpose());
    c
}

/// `C = A B`: `A: [n, k]`, `B: [k, m]`, `C: [n, m]`.
pub fn matmul(a: View, b: View) -> Matrix {
    let mut c = Matrix::zeros(a.rows, b.cols);
    matmul_into(&mut c, a.faer(), b.faer());
    c
}

/// `C = A B`, by row panels.
fn matmul_into(c: &mut Matrix, a: MatRef<f32>, b: MatRef<f32>) {
    debug_assert!(c.rows == a.nrows() && a.ncols() == b.nrows() && c.cols == b.ncols());
    let (rows, cols) = (panel(c.rows), c.cols);
    if cols == 0 {
        return;
    }
    let (n, k) = (c.rows, a.ncols());
    profile::count(2 * n * k * cols, n * k + k * cols + n * cols);
    c.data.par_chunks_mut(rows * cols).enumerate().for_each(|(i, out)| {
        let n = out.len() / cols;
        let out = MatMut::from_row_major_slice_mut(out, n, cols);
        let a = a.subrows(i * rows, n);
        matmul::matmul(out, Accum::Replace, a, b, 1.0, Par::Seq);
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

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn arbitrary(rows: usize, cols: usize, seed: u32) -> Matrix {
        let mut rng = rand_mt::Mt::new(seed);
        let data = (0..rows * cols).map(|_| rng.next_u32() as f32 / 2f32.powi(31) - 1.0).collect();
        Matrix::new(rows, cols, data)
    }

    pub(super) fn naive(a: &Matrix, b: &Matrix) -> Matrix {
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

    pub(super) fn close(a: &Matrix, b: &Matrix) {
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
            let mut sum = CrossGram::new(n, m);
            (0..2).for_each(|_| sum.add(a.transposed().view(), b.view()));
            close(&sum.rows(0..n), &Matrix::new(n, m, c.data.iter().map(|v| 2.0 * v).collect()));
        }
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

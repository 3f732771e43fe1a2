//! Dense matrix products.

use crate::{Matrix, View, profile};
use faer::{Accum, MatMut, MatRef, Par, linalg::matmul};
use rayon::prelude::*;

/// Rows per panel of a product with `rows` rows: small enough to share the work among
/// threads, large enough for each panel's product to run at full speed.
pub fn panel_rows(rows: usize) -> usize {
    rows.div_ceil(16).next_multiple_of(32).clamp(96, 512)
}

/// `C = A Bᵀ`: `A: [n, k]`, `B: [m, k]`, `C: [n, m]`. This is a linear layer
/// without its bias.
pub fn matmul_nt(a: View, b: View) -> Matrix {
    let mut c = Matrix::zeros(a.rows, b.rows);
    matmul_into(&mut c, a.as_faer(), b.as_faer().transpose());
    c
}

/// `C = A B`: `A: [n, k]`, `B: [k, m]`, `C: [n, m]`.
pub fn matmul(a: View, b: View) -> Matrix {
    let mut c = Matrix::zeros(a.rows, b.cols);
    matmul_into(&mut c, a.as_faer(), b.as_faer());
    c
}

/// `C = A B`, for gradients: the same as [`matmul()`] with fewer, higher panels, since each of them
/// copies B once into the order in which it is multiplied.
pub(crate) fn gradient_matmul(a: View, b: View) -> Matrix {
    let mut c = Matrix::zeros(a.rows, b.cols);
    let rows = high_panel_rows(c.rows);
    matmul_in_panels(&mut c, a.as_faer(), b.as_faer(), rows);
    c
}

/// `C = AᵀB`, for gradients: `A: [k, n]`, `B: [k, m]`, `C: [n, m]`.
pub(crate) fn gradient_matmul_tn(a: View, b: View) -> Matrix {
    let mut c = Matrix::zeros(a.cols, b.cols);
    let rows = high_panel_rows(c.rows);
    matmul_in_panels(&mut c, a.as_faer().transpose(), b.as_faer(), rows);
    c
}

/// Rows per panel of a gradient's product with `rows` rows.
fn high_panel_rows(rows: usize) -> usize {
    rows.div_ceil(4).next_multiple_of(32).min(256)
}

/// Computes `C = A B` by row panels.
fn matmul_into(c: &mut Matrix, a: MatRef<f32>, b: MatRef<f32>) {
    let rows = panel_rows(c.rows);
    matmul_in_panels(c, a, b, rows);
}

/// Computes `C = A B` by panels of `rows` rows.
fn matmul_in_panels(c: &mut Matrix, a: MatRef<f32>, b: MatRef<f32>, rows: usize) {
    debug_assert!(c.rows == a.nrows() && a.ncols() == b.nrows() && c.cols == b.ncols());
    let cols = c.cols;
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
    let (rows, cols) = (panel_rows(c.rows), c.cols);
    if c0 >= cols {
        return;
    }
    let (n, k, m) = (c.rows, a.cols, cols - c0);
    profile::count(2 * n * k * m, n * k + k * m + 2 * n * m);
    let (a, b) = (a.as_faer(), b.as_faer().subcols(c0, m));
    c.data.par_chunks_mut(rows * cols).enumerate().for_each(|(i, out)| {
        let n = out.len() / cols;
        let out = MatMut::from_row_major_slice_mut(out, n, cols).subcols_mut(c0, m);
        matmul::matmul(out, Accum::Add, a.subrows(i * rows, n), b, -1.0, Par::Seq);
    });
}

/// Computes `C[:, at..at + m] = [C +] α A Bᵀ` on this thread, for the rows of a tile:
/// `A: [n, k]`, `B: [m, k]`, and `c` has n rows.
pub fn tile_matmul_nt(c: &mut [f32], at: usize, add: bool, alpha: f32, a: View, b: View) {
    let (n, k, m) = (a.rows, a.cols, b.rows);
    if n == 0 || m == 0 {
        return;
    }
    debug_assert!(b.cols == k && c.len().is_multiple_of(n) && at + m <= c.len() / n);
    profile::count(2 * n * k * m, n * k + k * m + n * m);
    let cols = c.len() / n;
    let c = MatMut::from_row_major_slice_mut(c, n, cols).subcols_mut(at, m);
    let accum = if add { Accum::Add } else { Accum::Replace };
    matmul::matmul(c, accum, a.as_faer(), b.as_faer().transpose(), alpha, Par::Seq);
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::Matrix;

    pub fn arbitrary(rows: usize, cols: usize, seed: u32) -> Matrix {
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
            close(&gradient_matmul(a.view(), b.view()), &c);
            close(&gradient_matmul_tn(a.transposed().view(), b.view()), &c);
        }
    }

    /// Asserts that a product with sums of `depth` terms is the same on any number of threads.
    pub fn same_on_any_threads(depth: usize, product: impl Fn(View, View) -> Matrix + Sync) {
        let (a, b) = (arbitrary(301, depth, 4), arbitrary(depth, 190, 5));
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| product(a.view(), b.view()).data)
        };
        assert_eq!(run(1), run(3));
    }

    #[test]
    fn results_do_not_depend_on_the_number_of_threads() {
        same_on_any_threads(257, matmul);
    }
}

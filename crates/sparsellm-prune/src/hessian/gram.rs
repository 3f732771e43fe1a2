//! The sums over tokens `XᵀX` and `AᵀB`.
//!
//! The products of a few thousand tokens are computed in f32 and added up in f64. An f64 holds all
//! bits of such a sum unless its parts differ by a factor of about 2²⁹, so neither the order of
//! the parts nor the number of ranks changes the result.

use super::spread::owner;
use faer::{
    Accum, Mat, MatMut, MatRef, Par,
    linalg::matmul::{self, triangular::BlockStructure},
};
use rayon::prelude::*;
use sparsellm_ranks::Communicator;
use sparsellm_tensor::profile::{self, Phase, phase};
use sparsellm_tensor::{Matrix, View, panel_rows};
use std::ops::Range;

/// The number of columns that a task multiplies before it adds the products up.
const COLUMNS: usize = 1024;

/// The number of rows per piece of a Gram matrix. The pieces are small enough to share the work
/// among threads, although later pieces of a triangle take more work than earlier ones.
fn gram_panel(d: usize) -> usize {
    d.div_ceil(12).next_multiple_of(64).clamp(64, 512)
}

/// The index at which row `i` of a packed lower triangle begins.
fn start_of(i: usize) -> usize {
    i * (i + 1) / 2
}

/// A Gram matrix `G = XᵀX`, summed over chunks of tokens. As it is symmetric, only the lower
/// triangle is computed, in half the flops of the full product, and kept.
#[derive(Clone, Debug)]
pub struct Gram {
    d: usize,
    /// The lower triangle, packed row by row.
    lower: Vec<f64>,
    /// The number of tokens (rows of X) summed so far.
    pub tokens: usize,
}

impl Gram {
    /// An empty sum for inputs with `d` features.
    pub fn new(d: usize) -> Self {
        Gram { d, lower: vec![0.0; start_of(d)], tokens: 0 }
    }

    /// The Gram matrix of the columns of a matrix `x` that is the same on all ranks, such as a
    /// weight. Each rank computes a part of it. No tokens are counted.
    pub fn of(x: View, ranks: &dyn Communicator) -> Self {
        let mut gram = Gram::new(x.cols);
        gram.add_product(x.as_faer(), |piece| owner(ranks, piece) == ranks.rank());
        ranks.sum(&mut gram.lower);
        gram
    }

    /// Adds `XᵀX` for `X: [tokens, d]`.
    pub fn add(&mut self, x: View) {
        debug_assert_eq!(x.cols, self.d);
        self.tokens += x.rows;
        phase(Phase::Gram, || self.add_product(x.as_faer(), |_| true));
    }

    /// Adds `XᵀX`, of which only the pieces that are `wanted`.
    fn add_product(&mut self, x: MatRef<f32>, wanted: impl Fn(usize) -> bool) {
        let d = self.d;
        profile::count(x.nrows() * d * (d + 1), x.nrows() * d + d * (d + 1));
        let (size, mut left) = (gram_panel(d), self.lower.as_mut_slice());
        let mut pieces = Vec::new();
        for (piece, first) in (0..d).step_by(size).enumerate() {
            let n = size.min(d - first);
            let (rows, rest) = left.split_at_mut(start_of(first + n) - start_of(first));
            left = rest;
            if wanted(piece) {
                pieces.push((first, n, rows));
            }
        }
        pieces.into_par_iter().for_each(|(first, n, rows)| {
            let xt = x.subcols(first, n).transpose();
            let mut product = vec![0.0; n * n.max(COLUMNS.min(first))];
            let mut add = |start: usize, width: usize, product: &[f32]| {
                for (i, product) in product.chunks_exact(width).enumerate() {
                    let at = start_of(first + i) - start_of(first) + start;
                    let end = (at + width).min(at - start + first + i + 1);
                    add_up(&mut rows[at..end], product);
                }
            };
            for start in (0..first).step_by(COLUMNS) {
                let width = COLUMNS.min(first - start);
                let product = &mut product[..n * width];
                let out = MatMut::from_row_major_slice_mut(product, n, width);
                let right = x.subcols(start, width);
                matmul::matmul(out, Accum::Replace, xt, right, 1.0, Par::Seq);
                add(start, width, product);
            }
            let product = &mut product[..n * n];
            matmul::triangular::matmul(
                MatMut::from_row_major_slice_mut(product, n, n),
                BlockStructure::TriangularLower,
                Accum::Replace,
                xt,
                BlockStructure::Rectangular,
                xt.transpose(),
                BlockStructure::Rectangular,
                1.0,
                Par::Seq,
            );
            add(first, n, product);
        });
    }

    /// Adds up the ranks' sums, each over its own tokens.
    pub fn sum(&mut self, ranks: &dyn Communicator) {
        self.tokens = ranks.sum_number(self.tokens as f64) as usize;
        ranks.sum(&mut self.lower);
    }

    /// The number of features d.
    pub fn dim(&self) -> usize {
        self.d
    }

    /// The diagonal, `‖X_j‖²` for each feature j.
    pub fn diagonal(&self) -> Vec<f32> {
        (0..self.d).map(|j| self.lower[start_of(j) + j] as f32).collect()
    }

    /// The full symmetric matrix, multiplied by `scale`.
    pub fn scaled(&self, scale: f32) -> Matrix {
        const TILE: usize = 32;
        let (d, scale) = (self.d, f64::from(scale));
        let mut full = Matrix::zeros(d, d);
        full.data.par_chunks_mut((TILE * d).max(1)).enumerate().for_each(|(tile, rows)| {
            let first = tile * TILE;
            for j0 in (0..d).step_by(TILE) {
                for (i, row) in (first..).zip(rows.chunks_exact_mut(d)) {
                    for (j, v) in (j0..).zip(&mut row[j0..(j0 + TILE).min(d)]) {
                        let at = if j <= i { start_of(i) + j } else { start_of(j) + i };
                        *v = (scale * self.lower[at]) as f32;
                    }
                }
            }
        });
        full
    }

    /// The energy `tr(W G Wᵀ) = ‖X Wᵀ‖²` of the outputs of `w: [d_out, d]`. With L the lower
    /// triangle of G, `G = L + Lᵀ − diag G`, so it is enough to compute `W L`, half of the product.
    pub fn energy(&self, w: View) -> f64 {
        let d = self.dim();
        let values = 2 * w.data.len() + d * (d + 1) / 2;
        profile::count(w.data.len() * (d + 1), values);
        let rows = panel_rows(w.rows);
        let parts: Vec<f64> =
            w.data.par_chunks((rows * d).max(1)).map(|w| self.energy_of_rows(w)).collect();
        parts.iter().sum()
    }

    /// The energy of some rows of W, computed by blocks of L's columns.
    fn energy_of_rows(&self, w: &[f32]) -> f64 {
        const BLOCK: usize = 256;
        let d = self.d;
        let n = w.len() / d;
        let w = MatRef::from_row_major_slice(w, n, d);
        let lower = |i: usize, j: usize| self.lower[start_of(i) + j] as f32;
        let mut energy = 0.0;
        for start in (0..d).step_by(BLOCK) {
            let (size, end) = (BLOCK.min(d - start), (start + BLOCK).min(d));
            // The diagonal of G counts once in the sum, and every other element twice.
            let diagonal = |i, j| match start + i {
                _ if i < j => 0.0,
                at if i == j => 0.5 * lower(at, at),
                at => lower(at, start + j),
            };
            let diagonal = Mat::from_fn(size, size, diagonal);
            let mut wl = Mat::zeros(n, size);
            let part = w.subcols(start, size);
            matmul::matmul(&mut wl, Accum::Replace, part, &diagonal, 2.0, Par::Seq);
            for first in (end..d).step_by(COLUMNS) {
                let rows = COLUMNS.min(d - first);
                let below = Mat::from_fn(rows, size, |i, j| lower(first + i, start + j));
                let right = w.subcols(first, rows);
                matmul::matmul(&mut wl, Accum::Add, right, &below, 2.0, Par::Seq);
            }
            for j in 0..size {
                let products = (0..n).map(|i| f64::from(wl[(i, j)]) * f64::from(part[(i, j)]));
                energy += products.sum::<f64>();
            }
        }
        energy
    }

    /// Sets the sum to zero tokens.
    pub fn clear(&mut self) {
        self.lower.fill(0.0);
        self.tokens = 0;
    }

    /// Releases the memory; nothing can be added to the sum any more.
    pub fn forget(&mut self) {
        *self = Gram::new(0);
    }
}

/// The sum `AᵀB` for two matrices with a row per token, over chunks of tokens.
pub struct CrossGram {
    cols: usize,
    sum: Vec<f64>,
}

impl CrossGram {
    /// An empty sum for A with `rows` features and B with `cols` features.
    pub fn new(rows: usize, cols: usize) -> Self {
        CrossGram { cols, sum: vec![0.0; rows * cols] }
    }

    /// Adds `AᵀB` for `A: [tokens, rows]` and `B: [tokens, cols]`.
    pub fn add(&mut self, a: View, b: View) {
        let (n, rows, cols) = (a.rows, a.cols, self.cols);
        debug_assert!(b.cols == cols && b.rows == n && rows * cols == self.sum.len());
        profile::count(2 * n * rows * cols, n * rows + n * cols + rows * cols);
        let (size, at, b) = (panel_rows(rows), a.as_faer().transpose(), b.as_faer());
        self.sum.par_chunks_mut((size * cols).max(1)).enumerate().for_each(|(i, sums)| {
            let n = sums.len() / cols;
            let at = at.subrows(i * size, n);
            let mut product = vec![0.0; n * COLUMNS.min(cols)];
            for start in (0..cols).step_by(COLUMNS) {
                let width = COLUMNS.min(cols - start);
                let product = &mut product[..n * width];
                let out = MatMut::from_row_major_slice_mut(product, n, width);
                matmul::matmul(out, Accum::Replace, at, b.subcols(start, width), 1.0, Par::Seq);
                for (sums, product) in sums.chunks_exact_mut(cols).zip(product.chunks_exact(width))
                {
                    add_up(&mut sums[start..start + width], product);
                }
            }
        });
    }

    /// Adds up the ranks' sums, each over its own tokens.
    pub fn sum(&mut self, ranks: &dyn Communicator) {
        ranks.sum(&mut self.sum);
    }

    /// The rows in `range` of the sum, rounded to f32.
    pub fn rows(&self, range: Range<usize>) -> Matrix {
        let sums = &self.sum[range.start * self.cols..range.end * self.cols];
        Matrix::new(range.len(), self.cols, sums.iter().map(|v| *v as f32).collect())
    }

    /// Sets the sum to zero.
    pub fn clear(&mut self) {
        self.sum.fill(0.0);
    }
}

/// Adds f32 products to f64 sums.
fn add_up(sums: &mut [f64], product: &[f32]) {
    sums.iter_mut().zip(product).for_each(|(sum, v)| *sum += f64::from(*v));
}

#[cfg(test)]
mod tests {
    use super::*;
    use sparsellm_tensor::matmul;
    use sparsellm_testing::random;

    fn close(a: &Matrix, b: &Matrix) {
        assert_eq!((a.rows, a.cols), (b.rows, b.cols));
        for (x, y) in a.data.iter().zip(&b.data) {
            assert!((x - y).abs() <= 1e-4 * (1.0 + y.abs()), "{x} {y}");
        }
    }

    #[test]
    fn a_gram_matrix_is_the_sum_over_chunks() {
        let x = random(100, 150, 3, 1.0);
        let mut g = Gram::new(150);
        g.add(x.rows(0..37));
        g.add(x.rows(37..100));
        let mut want = matmul(x.transposed().view(), x.view());
        want.data.iter_mut().for_each(|v| *v *= 0.5);
        close(&g.scaled(0.5), &want);
        assert_eq!(g.tokens, 100);
    }

    #[test]
    fn a_cross_gram_adds_up_products() {
        let (a, b) = (random(33, 130, 1, 1.0), random(33, 70, 2, 1.0));
        let mut sum = CrossGram::new(130, 70);
        (0..2).for_each(|_| sum.add(a.view(), b.view()));
        let mut want = matmul(a.transposed().view(), b.view());
        want.data.iter_mut().for_each(|v| *v *= 2.0);
        close(&sum.rows(0..130), &want);
    }

    #[test]
    fn the_energy_is_that_of_the_outputs() {
        let (x, w) = (random(70, 45, 8, 1.0), random(37, 45, 9, 1.0));
        let mut g = Gram::new(45);
        g.add(x.view());
        let outputs = matmul(x.view(), w.transposed().view());
        let want: f64 = outputs.data.iter().map(|v| f64::from(*v).powi(2)).sum();
        assert!((g.energy(w.view()) / want - 1.0).abs() < 1e-5);
    }

    #[test]
    fn results_do_not_depend_on_the_number_of_threads() {
        let a = random(301, 257, 4, 1.0);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut g = Gram::new(257);
                g.add(a.view());
                g.scaled(1.0).data
            })
        };
        assert_eq!(run(1), run(3));
    }
}

//! A row-major matrix, and a view of some of its rows.

use faer::MatRef;
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

    /// Overwrites the rows from `first` on with `rows`.
    pub fn set_rows(&mut self, first: usize, rows: &Matrix) {
        let at = first * self.cols;
        self.data[at..at + rows.data.len()].copy_from_slice(&rows.data);
    }

    /// Row `i`, mutable.
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

    /// The same rows as a faer matrix.
    pub fn as_faer(&self) -> MatRef<'a, f32> {
        MatRef::from_row_major_slice(self.data, self.rows, self.cols)
    }
}

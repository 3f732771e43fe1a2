//! Weights, stored dense or packed.

use crate::{Matrix, SparseWeights, View, tile_matmul_nt};
use std::ops::{Deref, DerefMut};

/// The weights `W: [d_out, d_in]` of a linear, in the form that multiplies fastest: the
/// matrix itself or, if at least half of it is zero, its non-zero entries, packed.
///
/// They can be read as a [`Matrix`], and changed only through [`edit`](Self::edit), which
/// repacks them once the change is complete.
///
/// ```
/// use sparsellm_tensor::{Matrix, View, Weights};
///
/// let mut w = Weights::new(Matrix::new(1, 4, vec![1.0, 2.0, 3.0, 4.0]));
/// w.edit().data[1..].fill(0.0);
/// assert!(w.is_packed());
/// let mut y = [0.0];
/// w.product_tile(View::new(&[2.0, 9.0, 9.0, 9.0], 4), &mut y, 0, false, 1.0);
/// assert_eq!(y, [2.0]);
/// ```
#[derive(Clone, Debug)]
pub struct Weights {
    dense: Matrix,
    packed: Option<SparseWeights>,
}

impl Weights {
    /// Wraps `dense`, packing it if that pays off.
    pub fn new(dense: Matrix) -> Self {
        let packed = SparseWeights::of(&dense);
        Weights { dense, packed }
    }

    /// Creates a shape without entries, for planning; it cannot be multiplied.
    pub fn outline(rows: usize, cols: usize) -> Self {
        Weights { dense: Matrix { rows, cols, data: Vec::new() }, packed: None }
    }

    /// Borrows the weights for editing. They are repacked when the guard is dropped.
    pub fn edit(&mut self) -> WeightsMut<'_> {
        WeightsMut { weights: self }
    }

    /// Whether products use the packed form.
    pub fn is_packed(&self) -> bool {
        self.packed.is_some()
    }

    /// Computes `Y[:, at..at + d_out] = [Y +] α X Wᵀ` on this thread, for the rows of a tile
    /// `x: [n, d_in]`; `y` has n rows.
    pub fn product_tile(&self, x: View, y: &mut [f32], at: usize, add: bool, alpha: f32) {
        match &self.packed {
            Some(weights) => weights.tile_matmul_nt(y, at, add, alpha, x),
            None => tile_matmul_nt(y, at, add, alpha, x, self.dense.view()),
        }
    }
}

impl Deref for Weights {
    type Target = Matrix;

    fn deref(&self) -> &Matrix {
        &self.dense
    }
}

/// A guard over weights that are being edited.
pub struct WeightsMut<'a> {
    weights: &'a mut Weights,
}

impl Deref for WeightsMut<'_> {
    type Target = Matrix;

    fn deref(&self) -> &Matrix {
        &self.weights.dense
    }
}

impl DerefMut for WeightsMut<'_> {
    fn deref_mut(&mut self) -> &mut Matrix {
        &mut self.weights.dense
    }
}

impl Drop for WeightsMut<'_> {
    fn drop(&mut self) {
        self.weights.packed = SparseWeights::of(&self.weights.dense);
    }
}

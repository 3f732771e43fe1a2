//! Which weights of a pruned matrix are kept.

use crate::Matrix;

/// The places of the weights that pruning left. Values that belong to them, such as their
/// gradients, are lists in this order, row after row.
///
/// ```
/// use sparsellm_tensor::{Kept, Matrix};
///
/// let mut w = Matrix::new(2, 3, vec![0.0, 1.0, 0.0, 2.0, 0.0, 3.0]);
/// let kept = Kept::of(&w);
/// assert_eq!(kept.gather(&w), [1.0, 2.0, 3.0]);
/// kept.scatter(&[4.0, 5.0, 6.0], &mut w);
/// assert_eq!(w.data, [0.0, 4.0, 0.0, 5.0, 0.0, 6.0]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    rows: usize,
    cols: usize,
    /// One bit per entry, row-major.
    mask: Vec<u64>,
    count: usize,
}

impl Kept {
    /// The entries of `w` that are not zero.
    pub fn of(w: &Matrix) -> Kept {
        let bits = |word: &[f32]| {
            word.iter().enumerate().fold(0u64, |bits, (i, v)| bits | u64::from(*v != 0.0) << i)
        };
        let mask: Vec<u64> = w.data.chunks(64).map(bits).collect();
        let count = mask.iter().map(|word| word.count_ones() as usize).sum();
        Kept { rows: w.rows, cols: w.cols, mask, count }
    }

    /// How many weights are kept.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether no weight is kept.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether all weights are kept.
    pub fn is_all(&self) -> bool {
        self.count == self.rows * self.cols
    }

    /// The same shape, with no weight kept.
    pub fn none(&self) -> Kept {
        Kept { mask: vec![0; self.mask.len()], count: 0, ..*self }
    }

    /// The indices of the kept entries in the row-major data, in order.
    pub fn indices(&self) -> impl Iterator<Item = usize> + '_ {
        self.mask.iter().enumerate().flat_map(|(word, bits)| {
            let mut rest = *bits;
            std::iter::from_fn(move || {
                let bit = rest.trailing_zeros() as usize;
                rest &= rest.wrapping_sub(1);
                (bit < 64).then_some(word * 64 + bit)
            })
        })
    }

    /// The kept entries of a matrix of the same shape.
    pub fn gather(&self, matrix: &Matrix) -> Vec<f32> {
        debug_assert_eq!((matrix.rows, matrix.cols), (self.rows, self.cols));
        let mut values = Vec::with_capacity(self.count);
        values.extend(self.indices().map(|i| matrix.data[i]));
        values
    }

    /// Adds the kept entries of a matrix of the same shape to `sums`.
    pub fn add_to(&self, matrix: &Matrix, sums: &mut [f64]) {
        debug_assert_eq!((matrix.rows, matrix.cols), (self.rows, self.cols));
        sums.iter_mut().zip(self.indices()).for_each(|(sum, i)| *sum += f64::from(matrix.data[i]));
    }

    /// Overwrites the kept entries of a matrix of the same shape.
    pub fn scatter(&self, values: &[f32], matrix: &mut Matrix) {
        debug_assert_eq!((matrix.rows, matrix.cols), (self.rows, self.cols));
        self.indices().zip(values).for_each(|(i, v)| matrix.data[i] = *v);
    }
}

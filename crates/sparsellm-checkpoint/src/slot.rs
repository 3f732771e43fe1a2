//! Maps the weights of a linear to stored tensors.

use std::ops::Range;

/// Some rows of a stored matrix: equally spaced runs of consecutive rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    /// The first row of the first run.
    pub first: usize,
    /// Number of rows in a run.
    pub length: usize,
    /// Distance in rows from the start of one run to the start of the next.
    pub stride: usize,
    /// Number of runs.
    pub runs: usize,
}

impl Rows {
    /// The consecutive rows `range`.
    pub fn range(range: Range<usize>) -> Rows {
        Rows { first: range.start, length: range.len(), stride: range.len(), runs: 1 }
    }

    /// Number of rows.
    pub fn count(&self) -> usize {
        self.length * self.runs
    }

    /// The runs, in order.
    pub fn ranges(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let Rows { first, length, stride, runs } = *self;
        (0..runs).map(move |run| first + run * stride..first + run * stride + length)
    }
}

/// Maps the weights `W: [d_out, d_in]` of a linear to their stored form: some rows of a
/// tensor that may hold other linears as well (fused q, k and v), or its transpose (GPT-2's
/// Conv1D).
///
/// ```
/// use sparsellm_checkpoint::{Rows, Slot};
///
/// // Of two heads of 4 features, q, k and v interleaved: the rows of k.
/// let k = Slot {
///     tensor: "query_key_value.weight".into(),
///     rows: Rows { first: 4, length: 4, stride: 12, runs: 2 },
///     cols: 8,
///     transposed: false,
/// };
/// assert_eq!(k.rows.ranges().collect::<Vec<_>>(), [4..8, 16..20]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The tensor's name.
    pub tensor: String,
    /// The output features that the linear takes from the tensor.
    pub rows: Rows,
    /// Number of input features, d_in.
    pub cols: usize,
    /// Whether the tensor is stored as `[d_in, d_out]`.
    pub transposed: bool,
}

impl Slot {
    /// Maps to a whole tensor `[rows, cols]`.
    pub fn whole(tensor: String, rows: usize, cols: usize) -> Slot {
        Slot { tensor, rows: Rows::range(0..rows), cols, transposed: false }
    }

    /// Number of weights.
    pub fn len(&self) -> usize {
        self.rows.count() * self.cols
    }

    /// Whether there are no weights.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element ranges of the stored tensor (of `elements` elements) that hold the
    /// weights, in stored order, with the position of each in `W`.
    pub(crate) fn pieces(&self, elements: usize) -> Vec<Piece> {
        let (cols, mut at) = (self.cols, 0);
        let mut pieces = Vec::new();
        if !self.transposed {
            for rows in self.rows.ranges() {
                let stored = rows.start * cols..rows.end * cols;
                pieces.push(Piece { at, step: 1, stored: stored.clone() });
                at += stored.len();
            }
            return pieces;
        }
        let width = elements / cols.max(1);
        for rows in self.rows.ranges() {
            for col in 0..cols {
                let stored = col * width + rows.start..col * width + rows.end;
                pieces.push(Piece { at: at * cols + col, step: cols, stored });
            }
            at += rows.len();
        }
        pieces
    }
}

/// Consecutive elements of a stored tensor, which are those of `W` at `at`, `at + step`, ...
pub(crate) struct Piece {
    pub at: usize,
    pub step: usize,
    pub stored: Range<usize>,
}

impl Piece {
    /// Copies stored values to their positions in `w`.
    pub fn scatter(&self, values: &[f32], w: &mut [f32]) {
        if self.step == 1 {
            return w[self.at..self.at + values.len()].copy_from_slice(values);
        }
        w[self.at..].iter_mut().step_by(self.step).zip(values).for_each(|(w, v)| *w = *v);
    }

    /// Collects values from their positions in `w`.
    pub fn gather(&self, w: &[f32]) -> Vec<f32> {
        w[self.at..].iter().step_by(self.step).take(self.stored.len()).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_scatter_what_they_gather() {
        let rows = Rows { first: 1, length: 2, stride: 3, runs: 2 };
        for transposed in [false, true] {
            let slot = Slot { tensor: String::new(), rows: rows.clone(), cols: 5, transposed };
            // A stored matrix of 7 output and 5 input features; each entry encodes its
            // indices.
            let number = |out: usize, input: usize| (10 * out + input) as f32;
            let stored: Vec<f32> = match transposed {
                false => (0..35).map(|i| number(i / 5, i % 5)).collect(),
                true => (0..35).map(|i| number(i % 7, i / 7)).collect(),
            };
            let mut w = vec![0.0; slot.len()];
            for piece in slot.pieces(35) {
                piece.scatter(&stored[piece.stored.clone()], &mut w);
                assert_eq!(piece.gather(&w), &stored[piece.stored.clone()]);
            }
            let want: Vec<f32> =
                [1, 2, 4, 5].iter().flat_map(|i| (0..5).map(move |j| number(*i, j))).collect();
            assert_eq!(w, want, "transposed: {transposed}");
        }
    }
}

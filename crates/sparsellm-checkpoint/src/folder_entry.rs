//! A tensor as the header of a weight file lists it.

use crate::Dtype;
use std::ops::Range;

/// A tensor in the header of a weight file. Several may lie in the same bytes.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Its name.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Shape. Its product is at most the number of elements in the file.
    pub shape: Vec<usize>,
    /// From its first element's first byte to past its last element, in the file.
    pub bytes: Range<usize>,
    /// Distance in elements from one index to the next, per dimension, where the
    /// elements do not simply follow each other in row-major order.
    pub strides: Option<Vec<usize>>,
}

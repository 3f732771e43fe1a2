//! A tensor as listed in the header of a weight file.

use crate::Dtype;
use std::ops::Range;

/// A tensor in the header of a weight file. Several tensors may share the same bytes.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The tensor's name.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Shape. Its product is at most the number of elements in the file.
    pub shape: Vec<usize>,
    /// Byte range in the file that spans all its elements, from the first to the last.
    pub bytes: Range<usize>,
    /// Distance in elements between consecutive indices of each dimension; `None` if the
    /// elements are contiguous in row-major order.
    pub strides: Option<Vec<usize>>,
}

//! Reads tensors that are stored in another order as row-major.

use std::ops::Range;

/// Collects elements `range`, counted in row-major order, of a tensor whose elements of
/// `size` bytes lie `strides` apart in `bytes` (the bytes of an
/// [`Entry`](crate::folder_entry::Entry)).
pub(crate) fn gather(
    bytes: &[u8],
    size: usize,
    shape: &[usize],
    strides: &[usize],
    range: Range<usize>,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(range.len() * size);
    // The first element's index in each dimension, and its offset.
    let mut index = vec![0; shape.len()];
    let mut rest = range.start;
    for (i, &d) in index.iter_mut().zip(shape).rev() {
        *i = rest % d.max(1);
        rest /= d.max(1);
    }
    let mut at: usize = index.iter().zip(strides).map(|(i, stride)| i * stride).sum();
    for _ in range {
        out.extend_from_slice(bytes.get(at * size..(at + 1) * size).unwrap_or_default());
        for ((i, &d), &stride) in index.iter_mut().zip(shape).zip(strides).rev() {
            *i += 1;
            at += stride;
            if *i < d {
                break;
            }
            at -= d * stride;
            *i = 0;
        }
    }
    out
}

//! Work on tokens, tile by tile: each task takes a few hundred tokens through a
//! whole chain of operations, so that what lies between two products stays in
//! the cache and threads meet once per chain.

use super::View;
use crate::profile::{self, Region};
use faer::{Accum, MatMut, Par, linalg::matmul};
use rayon::prelude::*;
use std::ops::Range;

/// Tokens per tile: enough for its products to run at full speed.
pub const TILE: usize = 256;

/// Runs `body` on tiles of `rows` tokens in parallel: it is given a tile's range
/// of tokens and its part of each of the row-major `buffers`. The results come
/// in the order of the tokens.
pub fn tiles<const N: usize, R: Send>(
    rows: usize,
    buffers: [&mut [f32]; N],
    body: impl Fn(Range<usize>, [&mut [f32]; N]) -> R + Sync,
) -> Vec<R> {
    let mut tasks = Vec::with_capacity(rows.div_ceil(TILE));
    let mut rest = buffers.map(|buffer| (buffer.len() / rows.max(1), buffer));
    for start in (0..rows).step_by(TILE) {
        let range = start..(start + TILE).min(rows);
        let parts = rest.each_mut().map(|(cols, buffer)| {
            let (part, after) = std::mem::take(buffer).split_at_mut(range.len() * *cols);
            *buffer = after;
            part
        });
        tasks.push((range, parts));
    }
    let region = Region::here();
    tasks.into_par_iter().map(|(range, parts)| region.task(|| body(range, parts))).collect()
}

/// `C[:, at..at + m] = [C +] α A Bᵀ` on this thread, for a tile's rows:
/// `A: [n, k]`, `B: [m, k]`, `c` holds n rows.
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
    matmul::matmul(c, accum, a.faer(), b.faer().transpose(), alpha, Par::Seq);
}

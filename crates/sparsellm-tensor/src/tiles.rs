//! Processes tokens tile by tile: each task takes a few hundred tokens through a whole chain
//! of operations, so that intermediate results stay in the cache and threads synchronize once
//! per chain.

use crate::profile::Region;
use rayon::prelude::*;
use std::ops::Range;

/// Tokens per tile: enough for its products to run at full speed.
pub const TILE: usize = 256;

/// Runs `body` in parallel on tiles of `rows` tokens, passing it the tile's range of tokens
/// and its part of each of the row-major `buffers`. Returns the results in token order.
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

//! Assembles matrices whose parts are computed by different ranks.

use sparsellm_ranks::Communicator;
use sparsellm_tensor::Matrix;
use std::ops::Range;

/// The number of values gathered at once.
const PIECE: usize = 1 << 22;

/// The fewest rows that a rank gets, unless it gets none. A product with a single row sums in
/// a different order than the same row among others, which would change the result.
const LEAST: usize = 16;

/// A rank's rows of a matrix.
fn rows_of_rank(ranks: &dyn Communicator, rows: usize, rank: usize) -> Range<usize> {
    let pieces = ranks.share_of(rows / LEAST, rank);
    let end = if rank + 1 == ranks.size() { rows } else { pieces.end * LEAST };
    pieces.start * LEAST..end
}

/// This rank's rows of a matrix.
pub fn rows_of(ranks: &dyn Communicator, rows: usize) -> Range<usize> {
    rows_of_rank(ranks, rows, ranks.rank())
}

/// Calls `body` to change this rank's rows of `w`, then distributes all rows to all ranks.
/// `body` also receives the range of its rows.
pub fn on_rows<R>(
    ranks: &dyn Communicator,
    w: &mut Matrix,
    body: impl FnOnce(&mut Matrix, Range<usize>) -> R,
) -> R {
    let rows = rows_of(ranks, w.rows);
    if ranks.size() == 1 {
        return body(w, rows);
    }
    let mut mine = w.rows(rows.clone()).to_matrix();
    let result = body(&mut mine, rows);
    let (cols, all) = (w.cols, w.rows);
    let step = (PIECE / (cols * ranks.size()).max(1)).max(1);
    let shares: Vec<_> = (0..ranks.size()).map(|rank| rows_of_rank(ranks, all, rank)).collect();
    let mut gathered = Vec::new();
    let longest = shares.iter().map(Range::len).max().unwrap_or(0);
    for first in (0..longest).step_by(step) {
        // The part of a rank's rows that is gathered in this round.
        let now = |n: usize| first.min(n)..(first + step).min(n);
        let counts: Vec<_> = shares.iter().map(|rows| now(rows.len()).len() * cols).collect();
        gathered.resize(counts.iter().sum(), 0.0);
        ranks.gather(mine.rows(now(mine.rows)).data, &counts, &mut gathered);
        let mut from = &gathered[..];
        for (rows, count) in shares.iter().zip(counts) {
            let (part, rest) = from.split_at(count);
            let at = (rows.start + now(rows.len()).start) * cols;
            w.data[at..at + count].copy_from_slice(part);
            from = rest;
        }
    }
    result
}

/// A part of a matrix.
pub struct Block {
    /// Its rows.
    pub rows: Range<usize>,
    /// Its columns.
    pub cols: Range<usize>,
}

/// The rank that computes the `i`-th block of rows of a triangular matrix. Ranks take blocks in
/// turn, because later rows are more work.
pub fn owner(ranks: &dyn Communicator, i: usize) -> usize {
    i % ranks.size()
}

/// Distributes blocks of the row-major matrix `m` with `d` columns to all ranks. The `blocks` are
/// those of the block rows from `first` on, and each was computed by its [`owner`].
pub fn exchange(ranks: &dyn Communicator, m: &mut [f32], d: usize, first: usize, blocks: &[Block]) {
    if ranks.size() == 1 {
        return;
    }
    let area = |b: &Block| b.rows.len() * b.cols.len();
    let largest = blocks.iter().map(area).max().unwrap_or(0);
    let at_once = (PIECE / largest.max(1)).max(1);
    let (mut mine, mut gathered) = (Vec::new(), Vec::new());
    for (group, blocks) in blocks.chunks(at_once).enumerate() {
        let first = first + group * at_once;
        let of = |rank| {
            let blocks = (first..).zip(blocks);
            blocks.filter(move |(i, _)| owner(ranks, *i) == rank).map(|(_, block)| block)
        };
        let rows = |b: &Block| {
            let cols = b.cols.clone();
            b.rows.clone().map(move |i| i * d + cols.start..i * d + cols.end)
        };
        mine.clear();
        of(ranks.rank()).flat_map(rows).for_each(|row| mine.extend_from_slice(&m[row]));
        let counts: Vec<usize> = (0..ranks.size()).map(|rank| of(rank).map(area).sum()).collect();
        gathered.resize(counts.iter().sum(), 0.0);
        ranks.gather(&mine, &counts, &mut gathered);
        let mut from = &gathered[..];
        for row in (0..ranks.size()).flat_map(of).flat_map(rows) {
            let (part, rest) = from.split_at(row.len());
            m[row].copy_from_slice(part);
            from = rest;
        }
    }
}

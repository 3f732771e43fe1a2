//! The processes that a run is distributed over, called its ranks. Each holds its share of
//! the calibration tokens and works on its share of each weight's rows; what all ranks need
//! is summed, gathered or broadcast. A single process is the one-rank case, [`Local`].
//!
//! Every function that takes a [`Communicator`] is collective: all ranks call it, in the same
//! order. Unless stated otherwise, it returns the same bytes on every rank, so that all ranks
//! take the same decisions.
//!
//! ```
//! use sparsellm_ranks::{Communicator, Local};
//!
//! let ranks: &dyn Communicator = &Local;
//! assert_eq!(ranks.share(10), 0..10); // all of it, on the only rank
//! ```

#[cfg(feature = "mpi")]
pub mod mpi;

use serde_json::Value;
use sparsellm_base::{Error, Result};
use std::ops::Range;

/// Collective communication among the ranks.
pub trait Communicator {
    /// The index of this process among the ranks, from 0.
    fn rank(&self) -> usize;

    /// How many ranks there are.
    fn size(&self) -> usize;

    /// Replaces each value by its sum over the ranks.
    fn sum(&self, values: &mut [f64]);

    /// Overwrites `bytes` on every other rank with those of rank `root`.
    fn broadcast(&self, root: usize, bytes: &mut [u8]);

    /// Concatenates every rank's `mine` into `all`, in rank order; rank r contributes
    /// `counts[r]` values.
    fn gather(&self, mine: &[f32], counts: &[usize], all: &mut [f32]);

    /// Aborts the other ranks, and exits this process with `status`. Does nothing on a single
    /// rank.
    fn abort(&self, status: i32);
}

impl dyn Communicator + '_ {
    /// The contiguous share of `n` items that belongs to this rank.
    pub fn share(&self, n: usize) -> Range<usize> {
        self.share_of(n, self.rank())
    }

    /// The contiguous share of `n` items that belongs to rank `rank`.
    pub fn share_of(&self, n: usize, rank: usize) -> Range<usize> {
        let end = |rank: usize| (n as u128 * rank as u128 / self.size() as u128) as usize;
        end(rank)..end(rank + 1)
    }

    /// The size of the largest share of `n` items.
    pub fn largest_share(&self, n: usize) -> usize {
        n.div_ceil(self.size())
    }

    /// This rank's contiguous share of `n` items, in groups of `piece` that are never split.
    pub fn share_in_pieces(&self, n: usize, piece: usize) -> Range<usize> {
        let piece = piece.max(1);
        let pieces = self.share(n.div_ceil(piece));
        (pieces.start * piece).min(n)..(pieces.end * piece).min(n)
    }

    /// The size of the largest share of `n` items, in groups of `piece` that are never split.
    pub fn largest_share_in_pieces(&self, n: usize, piece: usize) -> usize {
        let piece = piece.max(1);
        (self.largest_share(n.div_ceil(piece)) * piece).min(n)
    }

    /// Calls `body` on rank 0 only, and broadcasts its result to all ranks as JSON.
    ///
    /// # Errors
    /// Returns rank 0's error on rank 0 only. The other ranks never learn of it and keep
    /// waiting, so the caller must end the job.
    pub fn broadcast_json(&self, body: impl FnOnce() -> Result<Value>) -> Result<Value> {
        let value = if self.rank() == 0 { body()? } else { Value::Null };
        if self.size() == 1 {
            return Ok(value);
        }
        let mut text = value.to_string().into_bytes();
        let mut length = (text.len() as u64).to_le_bytes();
        self.broadcast(0, &mut length);
        text.resize(u64::from_le_bytes(length) as usize, 0);
        self.broadcast(0, &mut text);
        serde_json::from_slice(&text)
            .map_err(|e| Error::Input(format!("rank 0 sent something that is not JSON: {e}")))
    }

    /// Runs `body` on rank 0 first and then on the other ranks, which find the files that
    /// rank 0 has left.
    ///
    /// # Errors
    /// Returns the error of `body`.
    pub fn rank_zero_first<T>(&self, body: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.rank() > 0 {
            self.wait_for_rank_zero();
            return body();
        }
        let done = body()?;
        self.wait_for_rank_zero();
        Ok(done)
    }

    /// Blocks the other ranks until rank 0 has reached this call.
    pub fn wait_for_rank_zero(&self) {
        self.broadcast(0, &mut [0]);
    }

    /// Sums a number over the ranks.
    pub fn sum_number(&self, value: f64) -> f64 {
        let mut values = [value];
        self.sum(&mut values);
        values[0]
    }

    /// Collects one number per rank, in rank order.
    pub fn gather_numbers(&self, value: f64) -> Vec<f64> {
        let mut values = vec![0.0; self.size()];
        values[self.rank()] = value;
        self.sum(&mut values);
        values
    }
}

/// A single process, without other ranks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Local;

impl Communicator for Local {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn sum(&self, _: &mut [f64]) {}

    fn broadcast(&self, _: usize, _: &mut [u8]) {}

    fn gather(&self, mine: &[f32], _: &[usize], all: &mut [f32]) {
        all.copy_from_slice(mine);
    }

    fn abort(&self, _: i32) {}
}

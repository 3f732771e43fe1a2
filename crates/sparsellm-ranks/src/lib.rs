//! The processes that a run is spread over, its ranks. Each has its part of the
//! calibration tokens and works on its part of each weight's rows; what all of
//! them must know is summed, gathered or broadcast. A process by itself is the
//! one-rank case, [`Local`].
//!
//! Every function that takes a [`Communicator`] is collective: all ranks call it,
//! in the same order. Unless it says otherwise, what it returns is the same bytes
//! on all of them, so that they also decide alike.
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

/// What ranks can tell each other.
pub trait Communicator {
    /// This process's place among the ranks, from 0.
    fn rank(&self) -> usize;

    /// How many ranks there are.
    fn size(&self) -> usize;

    /// Replaces values by their sums over the ranks.
    fn sum(&self, values: &mut [f64]);

    /// Replaces the others' bytes by those of `root`.
    fn broadcast(&self, root: usize, bytes: &mut [u8]);

    /// Fills `all` with what each rank has, in their order: `counts[r]` values of
    /// rank r.
    fn gather(&self, mine: &[f32], counts: &[usize], all: &mut [f32]);

    /// Ends the other ranks, and this one with `status`. Alone, does nothing.
    fn abort(&self, status: i32);
}

impl dyn Communicator + '_ {
    /// This rank's part of `n` things in a row.
    pub fn share(&self, n: usize) -> Range<usize> {
        self.share_of(n, self.rank())
    }

    /// A rank's part of `n` things in a row.
    pub fn share_of(&self, n: usize, rank: usize) -> Range<usize> {
        let end = |rank: usize| (n as u128 * rank as u128 / self.size() as u128) as usize;
        end(rank)..end(rank + 1)
    }

    /// The largest part of `n` things in a row.
    pub fn largest_share(&self, n: usize) -> usize {
        n.div_ceil(self.size())
    }

    /// This rank's part of `n` things in a row, of which each `piece` stays
    /// together.
    pub fn share_in_pieces(&self, n: usize, piece: usize) -> Range<usize> {
        let piece = piece.max(1);
        let pieces = self.share(n.div_ceil(piece));
        (pieces.start * piece).min(n)..(pieces.end * piece).min(n)
    }

    /// The size of the largest part of `n` things of which each `piece` stays
    /// together.
    pub fn largest_share_in_pieces(&self, n: usize, piece: usize) -> usize {
        let piece = piece.max(1);
        (self.largest_share(n.div_ceil(piece)) * piece).min(n)
    }

    /// What `body` makes on rank 0, broadcast to all ranks as JSON. On the other
    /// ranks `body` is not called.
    ///
    /// # Errors
    /// Rank 0's own, which the other ranks never hear of: it has to end the job.
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

    /// Runs `body` on rank 0 first and then on the other ranks, which find the files
    /// that rank 0 has left.
    ///
    /// # Errors
    /// Those of `body`.
    pub fn rank_zero_first<T>(&self, body: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.rank() > 0 {
            self.wait_for_rank_zero();
            return body();
        }
        let done = body()?;
        self.wait_for_rank_zero();
        Ok(done)
    }

    /// Holds the other ranks until rank 0 has come here.
    pub fn wait_for_rank_zero(&self) {
        self.broadcast(0, &mut [0]);
    }

    /// The sum of a number over the ranks.
    pub fn sum_number(&self, value: f64) -> f64 {
        let mut values = [value];
        self.sum(&mut values);
        values[0]
    }

    /// The numbers that the ranks have, in the order of ranks.
    pub fn gather_numbers(&self, value: f64) -> Vec<f64> {
        let mut values = vec![0.0; self.size()];
        values[self.rank()] = value;
        self.sum(&mut values);
        values
    }
}

/// One process by itself.
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

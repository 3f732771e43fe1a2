//! The processes that a run is spread over, its ranks. Each has its part of the
//! calibration tokens, and works on its part of each weight's rows; what all of
//! them must know is summed, gathered or broadcast. A process by itself is the
//! case of one rank.
//!
//! Every function that takes a [`Communicator`] is collective: all ranks call it,
//! in the same order. What it gives back is, unless it says otherwise, the same
//! bytes on all of them, so that they also decide alike.

#[cfg(feature = "mpi")]
mod mpi;
#[cfg(not(feature = "mpi"))]
mod single;

#[cfg(feature = "mpi")]
pub use mpi::{Job, join, world};
#[cfg(not(feature = "mpi"))]
pub use single::{Job, join, world};

use crate::error::{Error, Result};
use serde_json::Value;
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

    /// What `body` makes on rank 0, told to all; on the others it is not called.
    ///
    /// # Errors
    /// Rank 0's own, which the others never hear of: it has to end the job.
    pub fn told(&self, body: impl FnOnce() -> Result<Value>) -> Result<Value> {
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
            .map_err(|e| Error::Invalid(format!("rank 0 said what is no JSON: {e}")))
    }

    /// Does something on rank 0 first and then on the others: what rank 0 leaves in
    /// the files, they find.
    ///
    /// # Errors
    /// Those of `body`.
    pub fn after_first<T>(&self, body: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.rank() > 0 {
            self.wait_for_first();
            return body();
        }
        let done = body()?;
        self.wait_for_first();
        Ok(done)
    }

    /// Holds the others until rank 0 is here.
    pub fn wait_for_first(&self) {
        self.broadcast(0, &mut [0]);
    }

    /// The sum of a number over the ranks.
    pub fn total(&self, value: f64) -> f64 {
        let mut values = [value];
        self.sum(&mut values);
        values[0]
    }

    /// Each rank's number.
    pub fn each(&self, value: f64) -> Vec<f64> {
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

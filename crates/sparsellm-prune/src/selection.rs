//! How a mask is chosen from scores.

use crate::{
    Pattern, Scope, count,
    select::{each_smallest, mark_smallest, smallest},
};
use rayon::prelude::*;
use sparsellm_ranks::Communicator;
use sparsellm_tensor::Matrix;

/// How a mask is chosen from the scores of this rank's rows.
#[derive(Clone, Copy)]
pub struct Selection<'a> {
    /// The sparsity pattern: how many weights are removed.
    pub pattern: Pattern,
    /// Among which weights.
    pub scope: Scope,
    /// What an output row's error is worth, relative to the others': its scores
    /// are multiplied by it. `None`: all the same.
    pub row_weights: Option<&'a [f32]>,
    /// The ranks that hold the other rows.
    pub ranks: &'a dyn Communicator,
}

impl Selection<'_> {
    /// Zeroes the weights whose scores are among the lowest.
    pub fn prune(&self, w: &mut Matrix, scores: Vec<f32>) {
        let gone = self.mask(scores, w.cols, 1.0);
        w.data.par_iter_mut().zip(gone).filter(|(_, gone)| *gone).for_each(|(w, _)| *w = 0.0);
    }

    /// Marks the lowest `scores` (rows of `cols`): as many as the pattern
    /// wants, or a `share` of them, for a mask that grows. An N:M mask at a
    /// part of its size takes the lowest of those that will go.
    pub fn mask(&self, mut scores: Vec<f32>, cols: usize, share: f64) -> Vec<bool> {
        if let Some(weights) = self.row_weights {
            scores.par_chunks_mut(cols.max(1)).zip(weights).for_each(|(scores, weight)| {
                scores.iter_mut().for_each(|s| *s *= weight);
            });
        }
        let mut gone = vec![false; scores.len()];
        match (self.pattern, self.scope) {
            (Pattern::Unstructured(rho), Scope::Row) => {
                let k = count(rho * share, cols);
                let rows = gone.par_chunks_mut(cols.max(1)).zip(scores.par_chunks(cols.max(1)));
                rows.for_each(|(gone, scores)| {
                    smallest(scores, k).into_iter().for_each(|i| gone[i as usize] = true);
                });
            }
            (Pattern::Unstructured(rho), Scope::Block | Scope::Matrix) => {
                mark_smallest(&scores, rho * share, &mut gone, self.ranks);
            }
            (Pattern::NofM { zeros, of }, _) => {
                // Whole groups, many at a time.
                let piece = (1 << 16) / of.max(1) * of.max(1) + of;
                gone.par_chunks_mut(piece).zip(scores.par_chunks(piece)).for_each(
                    |(gone, scores)| {
                        for (gone, scores) in gone.chunks_mut(of).zip(scores.chunks(of)) {
                            each_smallest(scores, zeros, |i| gone[i] = true);
                        }
                    },
                );
                if share < 1.0 {
                    let kept = scores.iter_mut().zip(&gone).filter(|(_, gone)| !**gone);
                    kept.for_each(|(s, _)| *s = f32::INFINITY);
                    let rho = self.pattern.sparsity() * share;
                    mark_smallest(&scores, rho, &mut gone, self.ranks);
                }
            }
        }
        gone
    }
}

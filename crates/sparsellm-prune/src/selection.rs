//! Chooses a mask from the scores of weights.

use crate::{
    Pattern, Scope, count,
    select::{each_smallest, mark_smallest, smallest},
};
use rayon::prelude::*;
use sparsellm_ranks::Communicator;
use sparsellm_tensor::Matrix;
use std::ops::Range;

/// How a mask is chosen from the scores of this rank's rows.
#[derive(Clone, Copy)]
pub struct Selection<'a> {
    /// The sparsity pattern: how many weights are removed.
    pub pattern: Pattern,
    /// The set of weights among which scores are ranked; N:M patterns ignore it.
    pub scope: Scope,
    /// The importance of each output row's error relative to the other rows'. The row's scores
    /// are multiplied by it; `None` treats all rows alike.
    pub row_weights: Option<&'a [f32]>,
    /// Marks weights that are removed before all others and whatever the pattern: the zeros of the
    /// input that the settings keep, `[rows, d_in]`.
    pub held: Option<&'a [bool]>,
    /// The ranks that hold the other rows.
    pub ranks: &'a dyn Communicator,
}

impl Selection<'_> {
    /// The selection for some rows of the matrix, which has `cols` columns.
    pub fn of_rows(&self, rows: Range<usize>, cols: usize) -> Self {
        Selection {
            row_weights: self.row_weights.map(|weights| &weights[rows.clone()]),
            held: self.held.map(|held| &held[rows.start * cols..rows.end * cols]),
            ..*self
        }
    }

    /// Zeroes the weights `w` with the lowest `scores`, as many as the pattern removes.
    pub fn prune(&self, w: &mut Matrix, scores: Vec<f32>) {
        let gone = self.mask(scores, w.cols, 1.0);
        w.data.par_iter_mut().zip(gone).filter(|(_, gone)| *gone).for_each(|(w, _)| *w = 0.0);
    }

    /// Marks the weights with the lowest `scores` (in rows of `cols`).
    ///
    /// `share`, in [0, 1], is the fraction of the pattern's weights to mark: 1 marks all of
    /// them, and a solver whose mask grows step by step passes less at first. A share of an N:M
    /// pattern marks the lowest scores of the whole matrix among the weights that the full
    /// pattern would mark.
    ///
    /// Held weights are marked whatever their scores and the share. They count towards the number
    /// of weights to mark, and they may exceed it.
    pub fn mask(&self, mut scores: Vec<f32>, cols: usize, share: f64) -> Vec<bool> {
        if let Some(weights) = self.row_weights {
            scores.par_chunks_mut(cols.max(1)).zip(weights).for_each(|(scores, weight)| {
                scores.iter_mut().for_each(|s| *s *= weight);
            });
        }
        if let Some(held) = self.held {
            let held = scores.par_iter_mut().zip(held).filter(|(_, held)| **held);
            held.for_each(|(score, _)| *score = f32::NEG_INFINITY);
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
                // A task takes many whole groups at a time.
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
        if let Some(held) = self.held {
            gone.par_iter_mut().zip(held).for_each(|(gone, held)| *gone |= *held);
        }
        gone
    }
}

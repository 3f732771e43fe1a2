//! Applies the head of a model, which says how probable each next token is.

use rayon::prelude::*;
use sparsellm_base::Result;
use sparsellm_model::Model;
use sparsellm_tensor::{Matrix, exp_sum, matmul_nt, softcap};
use std::ops::Range;

/// The number of rows of the head that are loaded at once.
const HEAD_ROWS: usize = 4096;
/// The number of tokens whose logits exist at once.
const TOKENS: usize = 1024;

/// A model's score of a next token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// The natural logarithm of the token's probability.
    pub log_probability: f64,
    /// Whether greedy decoding would choose the token.
    pub is_greedy: bool,
}

/// The running log-sum-exp of a token's logits.
#[derive(Clone, Copy)]
struct Running {
    max: f32,
    argmax: usize,
    sum: f64,
    target: f32,
}

impl Running {
    const START: Running = Running { max: f32::NEG_INFINITY, argmax: 0, sum: 0.0, target: 0.0 };

    /// Adds the logits of the vocabulary's tokens `rows`.
    fn add(&mut self, logits: &[f32], rows: &Range<usize>, target: usize) {
        if rows.contains(&target) {
            self.target = logits[target - rows.start];
        }
        let max = logits.iter().fold(self.max, |m, &v| if v > m { v } else { m });
        if max > self.max {
            self.argmax = rows.start + logits.iter().position(|v| *v == max).unwrap_or(0);
        }
        self.sum = self.sum * f64::from(self.max - max).exp() + f64::from(exp_sum(logits, max));
        self.max = max;
    }

    /// The score of `target`, once the logits of the whole vocabulary have been added.
    fn scored(&self, target: usize) -> Scored {
        Scored {
            log_probability: f64::from(self.target) - f64::from(self.max) - self.sum.ln(),
            is_greedy: self.argmax == target,
        }
    }
}

/// Scores `targets[i]` as the token that follows row `i` of `hidden`, the input of the head
/// `[tokens, d]`. A row without a target gets no score. The head is applied a few thousand rows
/// at a time, with a running log-sum-exp per token, so that the logits of the whole vocabulary
/// are never in memory.
pub fn score(
    model: &Model,
    hidden: &Matrix,
    targets: &[Option<u32>],
) -> Result<Vec<Option<Scored>>> {
    let mut running = vec![Running::START; targets.len()];
    let vocabulary = model.shape().vocabulary;
    for first in (0..vocabulary).step_by(HEAD_ROWS) {
        let rows = first..(first + HEAD_ROWS).min(vocabulary);
        let head = model.head_rows(rows.clone())?;
        for start in (0..targets.len()).step_by(TOKENS) {
            let part = start..(start + TOKENS).min(targets.len());
            let mut logits = matmul_nt(hidden.rows(part.clone()), head.view());
            if let Some(cap) = model.logit_softcap() {
                logits.data.par_chunks_mut(rows.len()).for_each(|row| softcap(row, cap));
            }
            running[part].par_iter_mut().enumerate().for_each(|(i, running)| {
                let Some(target) = targets[start + i] else { return };
                running.add(logits.row(i), &rows, target as usize);
            });
        }
    }
    let scored = |(running, target): (&Running, &Option<u32>)| {
        target.map(|target| running.scored(target as usize))
    };
    Ok(running.iter().zip(targets).map(scored).collect())
}

//! The head: how probable a model finds given next tokens.

use crate::error::Result;
use crate::linalg::{Matrix, exp_sum, matmul_nt};
use crate::model::Model;
use rayon::prelude::*;

/// Rows of the head loaded at once.
const HEAD_ROWS: usize = 4096;
/// Tokens whose logits exist at once.
const TOKENS: usize = 1024;

/// How a model finds a next token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// The logarithm of its probability.
    pub log_probability: f64,
    /// Whether no token is more probable.
    pub is_greedy: bool,
}

/// Scores `targets[i]` as the token after row `i` of `hidden`, the head's input
/// `[tokens, d]`; `None` where there is none. The head is applied a few thousand
/// rows at a time, with a running log-sum-exp per token, so that logits of the
/// whole vocabulary never exist.
pub(super) fn score(
    model: &Model,
    hidden: &Matrix,
    targets: &[Option<u32>],
) -> Result<Vec<Option<Scored>>> {
    #[derive(Clone, Copy)]
    struct Running {
        max: f32,
        argmax: usize,
        sum: f64,
        target: f32,
    }
    let start = Running { max: f32::NEG_INFINITY, argmax: 0, sum: 0.0, target: 0.0 };
    let mut running = vec![start; targets.len()];
    let vocabulary = model.shape().vocabulary;
    for first in (0..vocabulary).step_by(HEAD_ROWS) {
        let rows = first..(first + HEAD_ROWS).min(vocabulary);
        let head = model.checkpoint.rows(model.family.head(), rows.clone(), hidden.cols)?;
        for start in (0..targets.len()).step_by(TOKENS) {
            let part = start..(start + TOKENS).min(targets.len());
            let logits = matmul_nt(hidden.rows(part.clone()), head.view());
            running[part].par_iter_mut().enumerate().for_each(|(i, r)| {
                let Some(target) = targets[start + i] else { return };
                let (row, target) = (logits.row(i), target as usize);
                if rows.contains(&target) {
                    r.target = row[target - first];
                }
                let max = row.iter().fold(r.max, |m, &v| if v > m { v } else { m });
                if max > r.max {
                    r.argmax = first + row.iter().position(|v| *v == max).unwrap_or(0);
                }
                r.sum = r.sum * f64::from(r.max - max).exp() + f64::from(exp_sum(row, max));
                r.max = max;
            });
        }
    }
    let scored = |(r, target): (&Running, &Option<u32>)| {
        target.map(|target| Scored {
            log_probability: f64::from(r.target) - f64::from(r.max) - r.sum.ln(),
            is_greedy: r.argmax == target as usize,
        })
    };
    Ok(running.iter().zip(targets).map(scored).collect())
}

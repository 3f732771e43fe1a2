//! Which weights may go: a fraction of them, or N of every M.

use super::select::{each_smallest, mark_smallest, smallest};
use crate::error::{Result, usage};
use crate::linalg::Matrix;
use crate::ranks::Communicator;
use rayon::prelude::*;
use std::{fmt, str::FromStr};

/// A sparsity pattern.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pattern {
    /// A fraction ρ in [0, 1) of the weights is zero.
    Unstructured(f64),
    /// `zeros` of every `of` consecutive weights along d_in are zero (2:4 is
    /// 50 %, 3:4 is 75 %: the convention of SparseGPT, Wanda and SparseLLM).
    NofM {
        /// Zeros per group, N.
        zeros: usize,
        /// Group size, M.
        of: usize,
    },
}

impl Pattern {
    /// A fraction of the weights.
    ///
    /// # Errors
    /// Where ρ is not in [0, 1).
    pub fn unstructured(sparsity: f64) -> Result<Pattern> {
        if !(0.0..1.0).contains(&sparsity) {
            return usage!(
                "sparsity {sparsity} is outside [0, 1); 0.7 means 70 % of the weights go"
            );
        }
        Ok(Pattern::Unstructured(sparsity))
    }

    /// The fraction of zeros it asks for.
    pub fn sparsity(self) -> f64 {
        match self {
            Pattern::Unstructured(rho) => rho,
            Pattern::NofM { zeros, of } => zeros as f64 / of as f64,
        }
    }

    /// Fails unless a linear with `d_in` inputs can have this pattern.
    pub fn check_width(self, d_in: usize, name: &str) -> Result<()> {
        match self {
            Pattern::NofM { zeros, of } if !d_in.is_multiple_of(of) => usage!(
                "pattern {zeros}:{of} does not fit {name}: its {d_in} inputs are not a multiple of {of}"
            ),
            _ => Ok(()),
        }
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let hint = || format!("pattern {text:?} is not N:M (zeros of every M weights, e.g. 2:4)");
        let (n, m) = text.split_once(':').ok_or_else(hint)?;
        let zeros: usize = n.parse().map_err(|_| hint())?;
        let of: usize = m.parse().map_err(|_| hint())?;
        if of == 0 || zeros > of {
            return Err(format!("pattern {text}: N must not exceed M, and M must be at least 1"));
        }
        Ok(Pattern::NofM { zeros, of })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Pattern::Unstructured(rho) => write!(f, "{}%", (rho * 1e4).round() / 1e2),
            Pattern::NofM { zeros, of } => write!(f, "{zeros}:{of}"),
        }
    }
}

/// ⌊ρ·n⌋, safe from `0.7 * 10 = 6.999…`.
pub fn count(rho: f64, n: usize) -> usize {
    ((rho * n as f64 + 1e-6).floor() as usize).min(n)
}

/// Among which weights a mask is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The columns of one block of the sweep (the authors').
    Block,
    /// Each output row.
    Row,
    /// The whole matrix.
    Matrix,
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "block" => Ok(Scope::Block),
            "row" => Ok(Scope::Row),
            "matrix" => Ok(Scope::Matrix),
            _ => Err(format!("unknown mask scope {text:?}; choose block, row or matrix")),
        }
    }
}

/// How a mask is chosen from the scores of this rank's rows.
#[derive(Clone, Copy)]
pub struct Selection<'a> {
    /// How much goes.
    pub pattern: Pattern,
    /// Among which weights.
    pub scope: Scope,
    /// What an output row's error is worth, relative to the others': its scores
    /// are multiplied by it. `None`: all the same.
    pub row_weights: Option<&'a [f32]>,
    /// Who has the other rows.
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

/// The fraction of entries that are zero.
pub fn measured_sparsity(values: &[f32]) -> f64 {
    let zeros = values.iter().filter(|v| **v == 0.0).count();
    zeros as f64 / values.len().max(1) as f64
}

/// Whether every `of` consecutive weights of each row hold `zeros` zeros or
/// more.
pub fn holds(w: &Matrix, zeros: usize, of: usize) -> bool {
    w.cols.is_multiple_of(of)
        && w.data.chunks_exact(of).all(|g| g.iter().filter(|v| **v == 0.0).count() >= zeros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_parse_and_refuse() {
        assert_eq!("2:4".parse(), Ok(Pattern::NofM { zeros: 2, of: 4 }));
        for bad in ["5:4", "2:0", "2", "a:b", "-1:4", ""] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad}");
        }
        assert!(Pattern::unstructured(1.0).is_err());
        assert!(Pattern::unstructured(f64::NAN).is_err());
        assert!(Pattern::unstructured(0.0).is_ok());
    }

    #[test]
    fn counts_are_exact() {
        for n in 0..2000usize {
            assert_eq!(count(0.7, n), n * 7 / 10);
            assert_eq!(count(0.9, n), n * 9 / 10);
        }
    }
}

//! Which weights may go: a fraction of them, or N of every M.

use crate::error::{Result, usage};
use crate::linalg::Matrix;
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

/// The indices of the `k` smallest scores, ties and NaN resolved by index.
pub fn smallest(scores: &[f32], k: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..scores.len() as u32).collect();
    if k == 0 {
        return Vec::new();
    }
    if k < order.len() {
        order.select_nth_unstable_by(k - 1, |&a, &b| {
            scores[a as usize].total_cmp(&scores[b as usize]).then(a.cmp(&b))
        });
        order.truncate(k);
    }
    order
}

/// Zeroes the `zeros` lowest-scored of each `of` entries of `row`.
pub fn prune_groups(row: &mut [f32], scores: &[f32], zeros: usize, of: usize) {
    for (w, s) in row.chunks_mut(of).zip(scores.chunks(of)) {
        for i in smallest(s, zeros) {
            w[i as usize] = 0.0;
        }
    }
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

/// How a mask is chosen from scores.
#[derive(Clone, Copy, Debug)]
pub struct Selection<'a> {
    /// How much goes.
    pub pattern: Pattern,
    /// Among which weights.
    pub scope: Scope,
    /// What an output row's error is worth, relative to the others': its scores
    /// are multiplied by it. `None`: all the same.
    pub row_weights: Option<&'a [f32]>,
}

impl Selection<'_> {
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
        let mark = |gone: &mut [bool], scores: &[f32], k| {
            smallest(scores, k).into_iter().for_each(|i| gone[i as usize] = true);
        };
        match (self.pattern, self.scope) {
            (Pattern::Unstructured(rho), Scope::Row) => {
                let k = count(rho * share, cols);
                let rows = gone.par_chunks_mut(cols.max(1)).zip(scores.par_chunks(cols.max(1)));
                rows.for_each(|(gone, scores)| mark(gone, scores, k));
            }
            (Pattern::Unstructured(rho), Scope::Block | Scope::Matrix) => {
                let k = count(rho * share, scores.len());
                mark(&mut gone, &scores, k);
            }
            (Pattern::NofM { zeros, of }, _) => {
                let groups = gone.par_chunks_mut(of).zip(scores.par_chunks(of));
                groups.for_each(|(gone, scores)| mark(gone, scores, zeros));
                if share < 1.0 {
                    let kept = scores.iter_mut().zip(&gone).filter(|(_, gone)| !**gone);
                    kept.for_each(|(s, _)| *s = f32::INFINITY);
                    let k = count(self.pattern.sparsity() * share, scores.len());
                    gone.fill(false);
                    mark(&mut gone, &scores, k);
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

    #[test]
    fn the_smallest_are_found_whatever_the_ties() {
        let scores = [3.0, 1.0, 1.0, f32::NAN, 0.5, 1.0];
        let mut got = smallest(&scores, 3);
        got.sort_unstable();
        assert_eq!(got, [1, 2, 4]);
        assert_eq!(smallest(&scores, 6).len(), 6);
    }
}

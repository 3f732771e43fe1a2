//! Sparsity patterns: a fraction of the weights, or N of every M.

use sparsellm_base::{Result, usage_error};
use sparsellm_model::Block;
use sparsellm_tensor::Matrix;
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
    /// The pattern that removes a fraction ρ = `sparsity` of the weights.
    ///
    /// # Errors
    /// If ρ is not in [0, 1).
    pub fn unstructured(sparsity: f64) -> Result<Pattern> {
        if !(0.0..1.0).contains(&sparsity) {
            return usage_error!(
                "sparsity {sparsity} is outside [0, 1); 0.7 means 70 % of the weights go"
            );
        }
        Ok(Pattern::Unstructured(sparsity))
    }

    /// The fraction of weights that the pattern removes.
    pub fn sparsity(self) -> f64 {
        match self {
            Pattern::Unstructured(rho) => rho,
            Pattern::NofM { zeros, of } => zeros as f64 / of as f64,
        }
    }

    /// Checks that a linear called `name` with `d_in` inputs can have this pattern.
    ///
    /// # Errors
    /// If `d_in` is not a multiple of an N:M pattern's M.
    pub fn check_width(self, d_in: usize, name: &str) -> Result<()> {
        match self {
            Pattern::NofM { zeros, of } if !d_in.is_multiple_of(of) => usage_error!(
                "pattern {zeros}:{of} does not fit {name}: its {d_in} inputs are not a multiple of {of}"
            ),
            _ => Ok(()),
        }
    }
}

impl Default for Pattern {
    /// The pattern that removes 70 % of the weights.
    fn default() -> Self {
        Pattern::Unstructured(0.7)
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let hint = || format!("pattern {text:?} is not N:M (zeros of every M weights, e.g. 2:4)");
        if let Some(percent) = text.strip_suffix('%') {
            let percent: f64 = percent.trim().parse().map_err(|_| hint())?;
            return Pattern::unstructured(percent / 100.0).map_err(|e| e.to_string());
        }
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

/// ⌊ρ·n⌋, computed so that rounding such as `0.7 * 10 = 6.999…` does not lose one.
pub fn count(rho: f64, n: usize) -> usize {
    ((rho * n as f64 + 1e-6).floor() as usize).min(n)
}

/// The set of weights among which scores are ranked to choose a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// All rows of one block of the OBS sweep's columns, as SparseGPT's authors have it.
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

/// The fraction of `values` that are zero.
pub fn measured_sparsity(values: &[f32]) -> f64 {
    let zeros = values.iter().filter(|v| **v == 0.0).count();
    zeros as f64 / values.len().max(1) as f64
}

/// The fraction of a decoder layer's weights that are zero.
pub fn layer_sparsity(block: &Block) -> f64 {
    let linears = block.linears();
    let size: usize = linears.iter().map(|l| l.weight.data.len()).sum();
    let zeros =
        linears.iter().map(|l| measured_sparsity(&l.weight.data) * l.weight.data.len() as f64);
    zeros.sum::<f64>() / size.max(1) as f64
}

/// Whether every group of `of` consecutive weights of each row has at least `zeros` zeros.
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
        assert_eq!("70%".parse(), Ok(Pattern::Unstructured(0.7)));
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

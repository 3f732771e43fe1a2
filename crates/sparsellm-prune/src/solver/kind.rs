//! The choice of the solver.

use crate::Scope;
use std::str::FromStr;

/// The solver that finds a linear's mask and weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Solver {
    /// The optimal-brain-surgeon sweep (SparseGPT).
    Obs,
    /// ADMM with a growing mask (Boža, 2024).
    Admm,
}

impl Solver {
    /// The mask scope that the solver was published with.
    pub fn scope(self) -> Scope {
        match self {
            Solver::Obs => Scope::Block,
            Solver::Admm => Scope::Matrix,
        }
    }
}

impl FromStr for Solver {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "obs" => Ok(Solver::Obs),
            "admm" => Ok(Solver::Admm),
            _ => Err(format!("unknown solver {text:?}; choose obs or admm")),
        }
    }
}

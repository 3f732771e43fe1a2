//! Pruning methods. A local method sees one linear and its inputs'
//! statistics; SparseLLM sees a whole feed-forward network.

pub mod admm;
pub mod magnitude;
pub mod pattern;
pub mod refit;
mod select;
pub mod solver;
pub mod sparsegpt;
pub mod sparsellm;
pub mod wanda;

pub use pattern::{Pattern, Scope};
pub use solver::{Options, Problem, Solver};

use std::str::FromStr;

/// Which method prunes the linears.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// The smallest weights go.
    Magnitude,
    /// The smallest `|W_ij|·‖X_j‖` of each row go (Sun et al., ICLR 2024).
    Wanda,
    /// Optimal-brain-surgeon sweep (Frantar & Alistarh, ICML 2023).
    SparseGpt,
    /// Global pruning of the feed-forward network (Bai et al., NeurIPS 2024).
    SparseLlm,
    /// SparseLLM with what was found to better it (docs/results.md).
    #[serde(rename = "sparsellm-plus")]
    SparseLlmPlus,
}

impl Method {
    /// Every method, simplest first.
    pub const ALL: [Method; 5] = [
        Method::Magnitude,
        Method::Wanda,
        Method::SparseGpt,
        Method::SparseLlm,
        Method::SparseLlmPlus,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Method::Magnitude => "magnitude",
            Method::Wanda => "wanda",
            Method::SparseGpt => "sparsegpt",
            Method::SparseLlm => "sparsellm",
            Method::SparseLlmPlus => "sparsellm-plus",
        }
    }

    /// Whether it prunes feed-forward networks as a whole.
    pub fn is_global(self) -> bool {
        matches!(self, Method::SparseLlm | Method::SparseLlmPlus)
    }

    /// Whether it only removes weights, and moves none.
    pub fn only_removes(self) -> bool {
        matches!(self, Method::Magnitude | Method::Wanda)
    }
}

impl FromStr for Method {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Method::ALL.into_iter().find(|m| m.name() == text).ok_or_else(|| {
            let names = Method::ALL.map(Method::name).join(", ");
            format!("unknown method {text:?}; choose one of {names}")
        })
    }
}

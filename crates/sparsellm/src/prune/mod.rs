//! Pruning methods. A local method sees one linear and its inputs'
//! statistics; SparseLLM sees a whole feed-forward network.

pub mod magnitude;
pub mod pattern;
pub mod sparsegpt;
pub mod sparsellm;
pub mod wanda;

pub use pattern::Pattern;

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
}

impl Method {
    /// Every method, simplest first.
    pub const ALL: [Method; 4] =
        [Method::Magnitude, Method::Wanda, Method::SparseGpt, Method::SparseLlm];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Method::Magnitude => "magnitude",
            Method::Wanda => "wanda",
            Method::SparseGpt => "sparsegpt",
            Method::SparseLlm => "sparsellm",
        }
    }
}

impl FromStr for Method {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Method::ALL.into_iter().find(|m| m.name() == text).ok_or_else(|| {
            format!("unknown method {text:?}; choose magnitude, wanda, sparsegpt or sparsellm")
        })
    }
}

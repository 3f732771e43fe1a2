//! The report of one run, as the command prints it.

use serde::Serialize;
use sparsellm_prune::{LayerReport, tune::TuneReport};

/// A model's perplexity on one text before and after pruning.
#[derive(Clone, Debug, Serialize)]
pub struct PerplexityReport {
    /// The text as the user named it.
    pub data: String,
    /// The perplexity of the dense model.
    pub dense: f64,
    /// The perplexity of the pruned model.
    pub pruned: f64,
    /// How many windows were measured.
    pub windows: usize,
    /// How many tokens each window has.
    pub seq_len: usize,
}

/// The report of a whole run, as `sparsellm prune --json` prints it.
#[derive(Clone, Debug, Serialize)]
pub struct PruneReport {
    /// The model as the user named it.
    pub model: String,
    /// The folder that holds the pruned model.
    pub output: String,
    /// The method's name, such as `sparsellm`.
    pub method: String,
    /// The fraction of zeros over all pruned linears, as written.
    pub sparsity: f64,
    /// How long the run took, in seconds of wall-clock time.
    pub seconds: f64,
    /// The largest resident memory of the process so far, in bytes.
    pub peak_rss_bytes: u64,
    /// The perplexity on each text that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub perplexity: Vec<PerplexityReport>,
    /// The pruned decoder layers, in order.
    pub layers: Vec<LayerReport>,
    /// What tuning through the whole model did, where it ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tune: Option<TuneReport>,
}

//! Records of a run: what the JSON output and `sparsellm.json` hold, and what
//! is written of many: tables and figures as CSV, Markdown and HTML.

mod axis;
mod csv;
mod figures;
mod group;
mod html;
mod markdown;
mod one;
mod page;
mod plot;
mod sections;
mod sweep;

pub use csv::csv;
pub use html::html;
pub use markdown::markdown;
pub use sweep::{Dense, Measured, Run, Sweep};

use crate::checkpoint::{PARTIAL, folder_of};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, io::Write, path::Path};

/// One pruned linear.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LinearReport {
    /// Fraction of its weights that are zero, as written.
    pub sparsity: f64,
    /// Relative error of its output on the calibration tokens,
    /// `‖X(W − Ŵ)ᵀ‖²/‖XWᵀ‖²`, where the method knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<f64>,
    /// Time spent on it; not part of a checkpoint's record.
    #[serde(default)]
    pub seconds: f64,
    /// Relative damping its Hessian needed, where that is more than asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raised_damping: Option<f32>,
}

/// One pruned decoder layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LayerReport {
    /// Its number, from 0.
    pub index: usize,
    /// Its linears by name.
    pub linears: BTreeMap<String, LinearReport>,
    /// SparseLLM: the feed-forward network's true error after each epoch.
    #[serde(deserialize_with = "sweep::nulls_are_infinite")]
    pub ffn_error: Vec<f64>,
    /// SparseLLM: the epoch whose weights were kept, from 1; 0 for the local
    /// methods.
    pub kept_epoch: usize,
}

/// Perplexity on one text before and after.
#[derive(Clone, Debug, Serialize)]
pub struct PerplexityReport {
    /// The text as the user named it.
    pub data: String,
    /// Of the model that was pruned.
    pub dense: f64,
    /// Of the output.
    pub pruned: f64,
    /// Windows measured.
    pub windows: usize,
    /// Tokens per window.
    pub seq_len: usize,
}

/// A model's accuracy on one zero-shot task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskReport {
    /// The task's name.
    pub task: String,
    /// Questions asked.
    pub items: usize,
    /// Fraction whose right answer is the likeliest (LAMBADA: the greedy one).
    pub acc: f64,
    /// Its standard error.
    pub acc_stderr: f64,
    /// The same by likelihood per character, where the task has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acc_norm: Option<f64>,
    /// Its standard error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acc_norm_stderr: Option<f64>,
    /// LAMBADA: of the last word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<f64>,
}

/// A whole run, as `prune --json` prints it.
#[derive(Clone, Debug, Serialize)]
pub struct PruneReport {
    /// The model as the user named it.
    pub model: String,
    /// The output folder.
    pub output: String,
    /// The method's name.
    pub method: String,
    /// Fraction of zeros over all pruned linears, as written.
    pub sparsity: f64,
    /// Wall-clock time.
    pub seconds: f64,
    /// The process's largest resident memory so far.
    pub peak_rss_bytes: u64,
    /// Perplexity before and after, where it was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub perplexity: Vec<PerplexityReport>,
    /// The pruned decoder layers in order.
    pub layers: Vec<LayerReport>,
}

/// Writes a report's file whole: beside its place, then renamed.
///
/// # Errors
/// Where the folder cannot be written to.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let folder = folder_of(path);
    let mut builder = tempfile::Builder::new();
    builder.prefix(PARTIAL);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666)); // less the umask
    }
    let mut file = builder.tempfile_in(folder).map_err(|e| Error::io(folder, e))?;
    let fail = |e| Error::io(path, e);
    file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(fail)?;
    file.persist(path).map_err(|e| fail(e.error))?;
    Ok(())
}

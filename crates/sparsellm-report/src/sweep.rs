//! The results of a sweep: the figures of each dense model, and every run that pruned one.

use serde::{Deserialize, Deserializer, Serialize};
use sparsellm_eval::TaskReport;
use sparsellm_prune::{LayerReport, tune::TuneReport};
use std::collections::BTreeMap;

/// A model's perplexity on one text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The text as the user named it.
    pub data: String,
    /// The perplexity. If it is not finite, JSON holds `null`, which is read back as infinity.
    #[serde(deserialize_with = "null_is_infinite")]
    pub perplexity: f64,
    /// How many windows were measured.
    pub windows: usize,
    /// How many tokens each window has.
    pub seq_len: usize,
}

/// The figures of a dense model, which every table shows in its first row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Dense {
    /// The model as the user named it.
    pub model: String,
    /// Its perplexity on each text.
    pub perplexity: Vec<Measured>,
    /// Its accuracy on each task.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<TaskReport>,
}

/// A run of a sweep: how it pruned a model, and the figures of the pruned model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// The model as the user named it.
    pub model: String,
    /// The method's name, such as `sparsellm`.
    pub method: String,
    /// The pattern as [`Pattern`](sparsellm_prune::Pattern) displays it: `70%`, `2:4`.
    pub pattern: String,
    /// All other settings that were given. The key is the name of the flag without its
    /// leading dashes: `alpha`, `samples`, `seed`. Runs that differ only in `seed` are
    /// repetitions of one another.
    pub settings: BTreeMap<String, String>,
    /// The fraction of zeros over all pruned linears, as written.
    pub sparsity: f64,
    /// How long the run took, in seconds of wall-clock time. `None` in a report that must be
    /// the same after every equal run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// The largest resident memory of the process, in bytes. `None` in a report that must be
    /// the same after every equal run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_rss_bytes: Option<u64>,
    /// The pruned model's perplexity on each text.
    pub perplexity: Vec<Measured>,
    /// The pruned model's accuracy on each task.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<TaskReport>,
    /// The pruned decoder layers, in order.
    pub layers: Vec<LayerReport>,
    /// What tuning through the whole model did, where it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tune: Option<TuneReport>,
}

/// A sweep: many runs side by side. `results.json` holds a sweep, and every report is
/// rendered from one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sweep {
    /// The title of the report.
    pub title: String,
    /// The version of sparsellm that ran the sweep.
    pub version: String,
    /// The figures of each model before it was pruned.
    pub dense: Vec<Dense>,
    /// The runs in the recipe's order.
    pub runs: Vec<Run>,
}

impl Sweep {
    /// The names of all models, in order of appearance.
    pub(crate) fn models(&self) -> Vec<&str> {
        let dense = self.dense.iter().map(|d| &d.model);
        distinct(dense.chain(self.runs.iter().map(|r| &r.model)).map(String::as_str))
    }

    /// The model's figures before pruning.
    pub(crate) fn dense(&self, model: &str) -> Option<&Dense> {
        self.dense.iter().find(|d| d.model == model)
    }

    /// The runs that pruned the model.
    pub(crate) fn runs_of(&self, model: &str) -> Vec<&Run> {
        self.runs.iter().filter(|r| r.model == model).collect()
    }

    /// The texts that `model` was measured on; for `None`, those of all models.
    pub(crate) fn texts(&self, model: Option<&str>) -> Vec<&str> {
        let of = |m: &str| model.is_none_or(|model| model == m);
        let dense = self.dense.iter().filter(|d| of(&d.model)).flat_map(|d| &d.perplexity);
        let runs = self.runs.iter().filter(|r| of(&r.model)).flat_map(|r| &r.perplexity);
        distinct(dense.chain(runs).map(|m| m.data.as_str()))
    }

    /// The tasks that `model` was asked; for `None`, those of all models.
    pub(crate) fn tasks(&self, model: Option<&str>) -> Vec<&str> {
        let of = |m: &str| model.is_none_or(|model| model == m);
        let dense = self.dense.iter().filter(|d| of(&d.model)).flat_map(|d| &d.tasks);
        let runs = self.runs.iter().filter(|r| of(&r.model)).flat_map(|r| &r.tasks);
        distinct(dense.chain(runs).map(|t| t.task.as_str()))
    }
}

/// The perplexity on the text `data`, if it was measured.
pub(crate) fn on(measured: &[Measured], data: &str) -> Option<f64> {
    measured.iter().find(|m| m.data == data).map(|m| m.perplexity)
}

/// The error of the layer's feed-forward network after the epoch that was kept, if the method
/// has epochs.
pub(crate) fn kept_error(layer: &LayerReport) -> Option<f64> {
    layer.ffn_error.get(layer.kept_epoch.checked_sub(1)?).copied()
}

/// The mean of `kept_error` over a run's layers.
pub(crate) fn mean_kept_error(run: &Run) -> Option<f64> {
    let errors: Vec<f64> = run.layers.iter().filter_map(kept_error).collect();
    (!errors.is_empty()).then(|| errors.iter().sum::<f64>() / errors.len() as f64)
}

/// The distinct items, in order of first appearance.
pub(crate) fn distinct<T: PartialEq>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut seen = Vec::new();
    for item in items {
        if !seen.contains(&item) {
            seen.push(item);
        }
    }
    seen
}

/// Reads `null` as infinity: JSON has no infinity, and serde_json writes `null` instead.
fn null_is_infinite<'de, D: Deserializer<'de>>(json: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(json)?.unwrap_or(f64::INFINITY))
}

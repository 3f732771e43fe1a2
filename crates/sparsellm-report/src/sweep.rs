//! What a sweep measured: the dense models, and every run that pruned one.

use serde::{Deserialize, Deserializer, Serialize};
use sparsellm_eval::TaskReport;
use sparsellm_prune::LayerReport;
use std::collections::BTreeMap;

/// A model's perplexity on one text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The text as the user named it.
    pub data: String,
    /// The perplexity. One that is not finite is `null` in JSON, which is read back as
    /// infinite.
    #[serde(deserialize_with = "null_is_infinite")]
    pub perplexity: f64,
    /// How many windows were measured.
    pub windows: usize,
    /// How many tokens each window has.
    pub seq_len: usize,
}

/// What was measured of a dense model. Every table has it as its first row.
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

/// A run of a sweep: how it pruned a model, and what was measured of the output.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// The model as the user named it.
    pub model: String,
    /// The method's name, such as `sparsellm`.
    pub method: String,
    /// The pattern as [`Pattern`](sparsellm_prune::Pattern) displays it: `70%`, `2:4`.
    pub pattern: String,
    /// Every other setting that was given, by the name of its flag without the dashes:
    /// `alpha`, `samples`, `seed`. Runs that differ in `seed` alone are repetitions of
    /// one another.
    pub settings: BTreeMap<String, String>,
    /// The fraction of zeros over all pruned linears, as written.
    pub sparsity: f64,
    /// How long the run took, in seconds of wall-clock time; `None` where the report is
    /// to be the same each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// The largest resident memory of the process, in bytes; `None` where the report is
    /// to be the same each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_rss_bytes: Option<u64>,
    /// The pruned model's perplexity on each text.
    pub perplexity: Vec<Measured>,
    /// The pruned model's accuracy on each task.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<TaskReport>,
    /// The pruned decoder layers in their order.
    pub layers: Vec<LayerReport>,
}

/// A sweep: many runs side by side. `results.json` holds one, and every report is
/// rendered from one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sweep {
    /// The title of the report.
    pub title: String,
    /// The version of sparsellm that made it.
    pub version: String,
    /// What was measured of each model before it was pruned.
    pub dense: Vec<Dense>,
    /// The runs in the recipe's order.
    pub runs: Vec<Run>,
}

impl Sweep {
    /// The models in order of appearance.
    pub(crate) fn models(&self) -> Vec<&str> {
        let dense = self.dense.iter().map(|d| &d.model);
        distinct(dense.chain(self.runs.iter().map(|r| &r.model)).map(String::as_str))
    }

    /// A model's figures before pruning.
    pub(crate) fn dense(&self, model: &str) -> Option<&Dense> {
        self.dense.iter().find(|d| d.model == model)
    }

    /// A model's runs.
    pub(crate) fn runs_of(&self, model: &str) -> Vec<&Run> {
        self.runs.iter().filter(|r| r.model == model).collect()
    }

    /// The texts that `model`, or any where `None`, was measured on.
    pub(crate) fn texts(&self, model: Option<&str>) -> Vec<&str> {
        let of = |m: &str| model.is_none_or(|model| model == m);
        let dense = self.dense.iter().filter(|d| of(&d.model)).flat_map(|d| &d.perplexity);
        let runs = self.runs.iter().filter(|r| of(&r.model)).flat_map(|r| &r.perplexity);
        distinct(dense.chain(runs).map(|m| m.data.as_str()))
    }

    /// The tasks, likewise.
    pub(crate) fn tasks(&self, model: Option<&str>) -> Vec<&str> {
        let of = |m: &str| model.is_none_or(|model| model == m);
        let dense = self.dense.iter().filter(|d| of(&d.model)).flat_map(|d| &d.tasks);
        let runs = self.runs.iter().filter(|r| of(&r.model)).flat_map(|r| &r.tasks);
        distinct(dense.chain(runs).map(|t| t.task.as_str()))
    }
}

/// The perplexity on one text, where it was measured.
pub(crate) fn on(measured: &[Measured], data: &str) -> Option<f64> {
    measured.iter().find(|m| m.data == data).map(|m| m.perplexity)
}

/// The error of the feed-forward network that was kept.
pub(crate) fn kept_error(layer: &LayerReport) -> Option<f64> {
    layer.ffn_error.get(layer.kept_epoch.checked_sub(1)?).copied()
}

/// Its mean over a run's layers.
pub(crate) fn mean_kept_error(run: &Run) -> Option<f64> {
    let errors: Vec<f64> = run.layers.iter().filter_map(kept_error).collect();
    (!errors.is_empty()).then(|| errors.iter().sum::<f64>() / errors.len() as f64)
}

/// Each item once, in order of appearance.
pub(crate) fn distinct<T: PartialEq>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut seen = Vec::new();
    for item in items {
        if !seen.contains(&item) {
            seen.push(item);
        }
    }
    seen
}

/// JSON has no infinity; serde_json writes `null`.
fn null_is_infinite<'de, D: Deserializer<'de>>(json: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(json)?.unwrap_or(f64::INFINITY))
}

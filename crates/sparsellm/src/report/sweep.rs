//! What a sweep measured: the dense models, and every run that pruned one.

use super::{LayerReport, TaskReport};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// A model's perplexity on one text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The text as the user named it.
    pub data: String,
    /// `null` in JSON where it is not finite; it comes back as infinite.
    #[serde(deserialize_with = "null_is_infinite")]
    pub perplexity: f64,
    /// Windows measured.
    pub windows: usize,
    /// Tokens per window.
    pub seq_len: usize,
}

/// A dense model's figures, the first row of every table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Dense {
    /// The model as the user named it.
    pub model: String,
    /// On each text.
    pub perplexity: Vec<Measured>,
    /// On each task.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<TaskReport>,
}

/// One pruned model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// The model as the user named it.
    pub model: String,
    /// The method's name.
    pub method: String,
    /// The pattern as [`Pattern`](crate::Pattern) displays it: `70%`, `2:4`.
    pub pattern: String,
    /// Every other option that was asked for, by its name without dashes:
    /// `alpha`, `samples`, `seed`. Runs that differ in `seed` alone are
    /// repetitions of one another.
    pub settings: BTreeMap<String, String>,
    /// Fraction of zeros over all pruned linears, as written.
    pub sparsity: f64,
    /// Wall-clock time; `None` where the report is to be the same each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// The largest resident memory, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_rss_bytes: Option<u64>,
    /// On each text.
    pub perplexity: Vec<Measured>,
    /// On each task.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<TaskReport>,
    /// The pruned decoder layers in order.
    pub layers: Vec<LayerReport>,
}

/// A sweep: what `results.json` holds and every report is made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sweep {
    /// Heads the report.
    pub title: String,
    /// Of sparsellm.
    pub version: String,
    /// Each model, unpruned.
    pub dense: Vec<Dense>,
    /// Each model, pruned, in the recipe's order.
    pub runs: Vec<Run>,
}

impl Sweep {
    /// The models in order of appearance.
    pub(super) fn models(&self) -> Vec<&str> {
        let dense = self.dense.iter().map(|d| &d.model);
        distinct(dense.chain(self.runs.iter().map(|r| &r.model)).map(String::as_str))
    }

    /// A model's figures before pruning.
    pub(super) fn dense(&self, model: &str) -> Option<&Dense> {
        self.dense.iter().find(|d| d.model == model)
    }

    /// A model's runs.
    pub(super) fn runs_of(&self, model: &str) -> Vec<&Run> {
        self.runs.iter().filter(|r| r.model == model).collect()
    }

    /// The texts that `model`, or any where `None`, was measured on.
    pub(super) fn texts(&self, model: Option<&str>) -> Vec<&str> {
        let of = |m: &str| model.is_none_or(|model| model == m);
        let dense = self.dense.iter().filter(|d| of(&d.model)).flat_map(|d| &d.perplexity);
        let runs = self.runs.iter().filter(|r| of(&r.model)).flat_map(|r| &r.perplexity);
        distinct(dense.chain(runs).map(|m| m.data.as_str()))
    }

    /// The tasks, likewise.
    pub(super) fn tasks(&self, model: Option<&str>) -> Vec<&str> {
        let of = |m: &str| model.is_none_or(|model| model == m);
        let dense = self.dense.iter().filter(|d| of(&d.model)).flat_map(|d| &d.tasks);
        let runs = self.runs.iter().filter(|r| of(&r.model)).flat_map(|r| &r.tasks);
        distinct(dense.chain(runs).map(|t| t.task.as_str()))
    }
}

/// The perplexity on one text, where it was measured.
pub(super) fn on(measured: &[Measured], data: &str) -> Option<f64> {
    measured.iter().find(|m| m.data == data).map(|m| m.perplexity)
}

/// The error of the feed-forward network that was kept.
pub(super) fn kept_error(layer: &LayerReport) -> Option<f64> {
    layer.ffn_error.get(layer.kept_epoch.checked_sub(1)?).copied()
}

/// Its mean over a run's layers.
pub(super) fn mean_kept_error(run: &Run) -> Option<f64> {
    let errors: Vec<f64> = run.layers.iter().filter_map(kept_error).collect();
    (!errors.is_empty()).then(|| errors.iter().sum::<f64>() / errors.len() as f64)
}

/// Each item once, in order of appearance.
pub(super) fn distinct<T: PartialEq>(items: impl IntoIterator<Item = T>) -> Vec<T> {
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

pub(super) fn nulls_are_infinite<'de, D: Deserializer<'de>>(json: D) -> Result<Vec<f64>, D::Error> {
    let values: Vec<Option<f64>> = Vec::deserialize(json)?;
    Ok(values.into_iter().map(|v| v.unwrap_or(f64::INFINITY)).collect())
}

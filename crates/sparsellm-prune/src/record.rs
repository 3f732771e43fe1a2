//! The record of a pruned layer, in the run's JSON and in `sparsellm.json`.

use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

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
    #[serde(deserialize_with = "nulls_are_infinite")]
    pub ffn_error: Vec<f64>,
    /// SparseLLM: the epoch whose weights were kept, from 1; 0 for the local
    /// methods.
    pub kept_epoch: usize,
}

/// Reads numbers of which some may not be finite: JSON has no infinity, and
/// serde_json writes `null`.
///
/// # Errors
/// Where they are no numbers.
pub fn nulls_are_infinite<'de, D: Deserializer<'de>>(json: D) -> Result<Vec<f64>, D::Error> {
    let values: Vec<Option<f64>> = Vec::deserialize(json)?;
    Ok(values.into_iter().map(|v| v.unwrap_or(f64::INFINITY)).collect())
}

//! The record of a pruned layer, as the run's JSON and `sparsellm.json` hold it.

use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// One pruned linear.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LinearReport {
    /// The fraction of its weights that are zero in the output.
    pub sparsity: f64,
    /// The relative error of its output on the calibration tokens,
    /// `‖X(W − Ŵ)ᵀ‖²/‖XWᵀ‖²`, if the method measures it. If the dense output is zero on all
    /// tokens, it is the numerator alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<f64>,
    /// The time spent on it, in seconds; a checkpoint's record leaves it out.
    #[serde(default)]
    pub seconds: f64,
    /// The relative damping that its Hessian needed, if more than the settings ask for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raised_damping: Option<f32>,
}

/// One pruned decoder layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LayerReport {
    /// Its index in the model, counted from 0.
    pub index: usize,
    /// Its linears, by name.
    pub linears: BTreeMap<String, LinearReport>,
    /// SparseLLM: the true error of the feed-forward network after each epoch, relative to its
    /// dense output (or absolute if that is zero on all tokens); empty for other methods.
    #[serde(deserialize_with = "nulls_are_infinite")]
    pub ffn_error: Vec<f64>,
    /// SparseLLM: the epoch whose weights were kept, counted from 1; 0 for other methods.
    pub kept_epoch: usize,
    /// What tuning did, for each half that was tuned.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tuned: BTreeMap<String, HalfReport>,
}

/// What tuning a half-block did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HalfReport {
    /// The epoch whose parameters were kept; 0 if none was better than what there was.
    pub kept_epoch: usize,
    /// The relative error on the held-out segments, before tuning and after each epoch; absolute
    /// if the half has nothing to add to any of them.
    #[serde(deserialize_with = "nulls_are_infinite")]
    pub held_out: Vec<f64>,
}

/// The squared `error` relative to the `energy` of the dense output. A linear or network whose
/// dense output is zero on all tokens has no relative error; its squared error is returned as it
/// is, which is 0 if the pruned one gives nothing either.
pub(crate) fn relative_error(error: f64, energy: f64) -> f64 {
    if energy <= 0.0 { error } else { error / energy }
}

/// Reads a list of numbers, some of which may be infinite: JSON has no infinity, and serde_json
/// writes `null` in its place.
///
/// # Errors
/// If an element is neither a number nor `null`.
pub fn nulls_are_infinite<'de, D: Deserializer<'de>>(json: D) -> Result<Vec<f64>, D::Error> {
    let values: Vec<Option<f64>> = Vec::deserialize(json)?;
    Ok(values.into_iter().map(|v| v.unwrap_or(f64::INFINITY)).collect())
}

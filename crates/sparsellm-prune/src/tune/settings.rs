//! The options of tuning.

use super::epochs::held_out;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sparsellm_base::{Error, Result, usage_error};
use sparsellm_tensor::Arithmetic;
use std::str::FromStr;

/// What is tuned while or after a model is pruned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TuneScope {
    /// Nothing.
    #[default]
    None,
    /// Each half of a block, as soon as it is pruned.
    Block,
    /// The whole model, after its last layer is pruned.
    Global,
    /// First each half of a block, then the whole model.
    Both,
}

impl TuneScope {
    /// Whether blocks are tuned.
    pub fn blocks(self) -> bool {
        matches!(self, TuneScope::Block | TuneScope::Both)
    }

    /// Whether the whole model is tuned.
    pub fn model(self) -> bool {
        matches!(self, TuneScope::Global | TuneScope::Both)
    }
}

impl FromStr for TuneScope {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "none" => Ok(TuneScope::None),
            "block" => Ok(TuneScope::Block),
            "global" => Ok(TuneScope::Global),
            "both" => Ok(TuneScope::Both),
            _ => Err(format!("{text:?} cannot be tuned; choose none, block, global or both")),
        }
    }
}

/// The options of tuning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TuneSettings {
    /// How often tuning goes through the training segments.
    pub tune_epochs: usize,
    /// The largest step of Adam through the whole model.
    pub learning_rate: f64,
    /// The largest step of Adam on half a block, whose loss is a sum of squares with less noise.
    pub block_learning_rate: f64,
    /// How much the distance to the dense model's hidden states counts beside the divergence of the
    /// next-token probabilities, when the whole model is tuned.
    pub hidden_weight: f64,
    /// The number of segments whose gradients make one step.
    pub batch: usize,
    /// The arithmetic of the gradients and of the logits.
    pub arithmetic: Arithmetic,
}

impl Default for TuneSettings {
    fn default() -> Self {
        TuneSettings {
            tune_epochs: 4,
            learning_rate: 7e-4,
            block_learning_rate: 2e-3,
            hidden_weight: 10.0,
            batch: 1,
            arithmetic: Arithmetic::default(),
        }
    }
}

impl TuneSettings {
    /// Returns these settings with the values that were `asked` for, by the names of the fields.
    ///
    /// # Errors
    /// If a key is not a setting, or a value has the wrong type or is out of its bounds.
    pub fn overlay(&self, asked: &Map<String, Value>) -> Result<TuneSettings> {
        let bad = |e: serde_json::Error| Error::Usage(format!("settings: {e}"));
        let mut all = serde_json::to_value(self).map_err(bad)?;
        if let Value::Object(all) = &mut all {
            all.extend(asked.clone());
        }
        let settings: TuneSettings = serde_json::from_value(all).map_err(bad)?;
        settings.validate()?;
        Ok(settings)
    }

    /// The number of segments that tuning wants beside the first epoch's `samples`: those of the
    /// other epochs, and the held-out ones.
    pub fn more_segments(&self, samples: usize) -> usize {
        let epochs = self.tune_epochs.saturating_sub(1);
        epochs.saturating_mul(samples).saturating_add(held_out(samples))
    }

    /// Checks that the options can be honoured.
    ///
    /// # Errors
    /// If one of them is out of its bounds.
    pub fn validate(&self) -> Result<()> {
        if self.tune_epochs == 0 || self.batch == 0 {
            return usage_error!("`tune_epochs` and `batch` must be at least 1");
        }
        if !(self.hidden_weight >= 0.0 && self.hidden_weight.is_finite()) {
            let weight = self.hidden_weight;
            return usage_error!(
                "`hidden_weight` is {weight}; a number of at least 0 was expected"
            );
        }
        let rates = [
            ("learning_rate", self.learning_rate),
            ("block_learning_rate", self.block_learning_rate),
        ];
        for (name, rate) in rates {
            if !(rate > 0.0 && rate < 1.0) {
                return usage_error!("`{name}` is {rate}; a number between 0 and 1 was expected");
            }
        }
        Ok(())
    }
}

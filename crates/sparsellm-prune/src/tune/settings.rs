//! The options of tuning.

use serde::{Deserialize, Serialize};
use sparsellm_base::{Result, usage_error};

/// The options of tuning through the whole model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TuneSettings {
    /// How often tuning goes through the training segments.
    pub tune_epochs: usize,
    /// The largest step of Adam.
    pub learning_rate: f64,
    /// The number of segments whose gradients make one step.
    pub batch: usize,
}

impl Default for TuneSettings {
    fn default() -> Self {
        TuneSettings { tune_epochs: 4, learning_rate: 2e-4, batch: 2 }
    }
}

impl TuneSettings {
    /// Checks that the options can be honoured.
    ///
    /// # Errors
    /// If one of them is out of its bounds.
    pub fn validate(&self) -> Result<()> {
        if self.tune_epochs == 0 || self.batch == 0 {
            return usage_error!("`tune_epochs` and `batch` must be at least 1");
        }
        if !(self.learning_rate > 0.0 && self.learning_rate < 1.0) {
            return usage_error!(
                "`learning_rate` is {}; a number between 0 and 1 was expected",
                self.learning_rate
            );
        }
        Ok(())
    }
}

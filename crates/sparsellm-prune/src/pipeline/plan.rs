//! The inputs and options of a run.

use super::calibration::Calibration;
use crate::{Allocation, Method, Settings, methods::Needs, tune::TuneScope};
use sparsellm_model::Model;
use sparsellm_ranks::Communicator;

/// The inputs and options of a run.
#[derive(Clone, Copy)]
pub struct Plan<'a> {
    /// The model to prune.
    pub model: &'a Model,
    /// The method that prunes it.
    pub method: &'a dyn Method,
    /// The settings to prune with.
    pub settings: &'a Settings,
    /// The calibration text; `None` is allowed if [`needs_text`](Self::needs_text) is false.
    pub calibration: Option<&'a Calibration>,
    /// The number of bytes of memory that the run may take; `None` sets no limit. If it would need
    /// more, z, s and moments are kept in temporary files beside the output.
    pub memory: Option<usize>,
    /// The ranks over which the run is spread; each works on its part of the calibration
    /// segments.
    pub ranks: &'a dyn Communicator,
}

impl Plan<'_> {
    /// Whether pruning looks at calibration text.
    pub fn needs_text(&self) -> bool {
        needs_text(self.method, self.settings)
    }
}

/// Whether a method with these settings looks at calibration text.
pub fn needs_text(method: &dyn Method, settings: &Settings) -> bool {
    method.needs() != Needs::Nothing
        || settings.refit > 0
        || settings.allocation != Allocation::Uniform
        || settings.tune != TuneScope::None
}

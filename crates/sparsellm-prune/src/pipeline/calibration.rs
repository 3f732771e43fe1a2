//! What a model is calibrated on.

use sparsellm_text::Segments;
use std::cell::RefCell;

/// What a model is calibrated on, with what the dense model shows on it: many runs on
/// one model may share it.
pub struct Calibration {
    /// The calibration segments.
    pub segments: Segments,
    /// Each layer's share of outliers, once a run has needed it.
    pub(super) outliers: RefCell<Vec<f64>>,
}

impl Calibration {
    /// The calibration of a model that nothing has been asked about yet.
    pub fn new(segments: Segments) -> Self {
        Calibration { segments, outliers: RefCell::default() }
    }
}

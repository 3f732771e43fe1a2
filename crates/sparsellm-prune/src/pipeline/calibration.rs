//! The calibration text of a model.

use sparsellm_text::Segments;
use std::cell::RefCell;

/// The calibration text of a model, with the statistics of the dense model on it. Several runs
/// on one model may share it.
pub struct Calibration {
    /// The calibration segments.
    pub segments: Segments,
    /// Further segments of the same text, for tuning the whole model.
    pub more: Segments,
    /// Each layer's share of outliers, once a run has needed it.
    pub(super) outliers: RefCell<Vec<f64>>,
}

impl Calibration {
    /// A calibration on `segments`, without statistics yet.
    pub fn new(segments: Segments) -> Self {
        let more = Segments::new(Vec::new(), segments.seq_len);
        Calibration { segments, more, outliers: RefCell::default() }
    }

    /// The same, with `more` segments of the same text for tuning the whole model.
    pub fn with_more(self, more: Segments) -> Self {
        Calibration { more, ..self }
    }
}

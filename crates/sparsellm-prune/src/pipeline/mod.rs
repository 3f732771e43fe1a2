//! The pipeline: load one decoder layer, run it on the calibration hidden states,
//! prune its linears, run it again pruned, write it, next layer.

mod allocation;
mod calibration;
mod layer;
mod memory;
mod plan;
mod run;
mod statistics;
mod tuning;

pub use calibration::Calibration;
pub use plan::{Plan, needs_text};
pub use run::prune_model;
pub use tuning::tune_pruned;

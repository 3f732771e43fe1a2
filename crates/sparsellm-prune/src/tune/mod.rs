//! Tuning of what pruning kept, through the whole model: masks stay fixed, and the kept weights,
//! biases and norms move until the pruned model says what the dense one says.

mod adam;
mod distillation;
mod global;
mod settings;
mod student;

pub use global::{Held, TuneReport, tune_model, write_tuned};
pub use settings::TuneSettings;

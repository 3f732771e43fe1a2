//! Tuning of what pruning kept, through the whole model: masks stay fixed, and the kept weights,
//! biases and norms move until the pruned model says what the dense one says.

mod adam;
mod distillation;
mod epochs;
mod global;
mod half;
mod head;
mod layer;
mod memory;
mod settings;
mod state;
mod student;
mod teacher;
mod text;

pub use crate::record::HalfReport;
pub use global::{TunePlan, TuneReport, tune_model};
pub use half::{HalfTask, run_half, tune_half};
pub(crate) use head::{Head, TOKENS, cap_backward, log_sum_exp, tiles};
pub(crate) use memory::{COMPARED, moving};
pub use memory::{Sizes, peak};
pub use settings::{TuneScope, TuneSettings};

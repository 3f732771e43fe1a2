//! Pruning: Hessians, methods, SparseLLM, and the pipeline that takes them through a
//! model's decoder layers.
//!
//! Most programs want the crate `sparsellm`, which puts all of this behind one interface. This
//! crate serves programs that have matrices of their own to prune:
//!
//! ```
//! use sparsellm_prune::{Gram, Pattern, Settings, prune_matrix};
//! use sparsellm_tensor::Matrix;
//!
//! // A linear's inputs on some tokens, [tokens, d_in], and its weights, [d_out, d_in].
//! let x = Matrix::new(6, 4, (0..24).map(|i| ((i * 7 % 11) as f32).sin()).collect());
//! let mut w = Matrix::new(2, 4, (0..8).map(|i| (i as f32).cos()).collect());
//! let mut gram = Gram::new(4); // XᵀX
//! gram.add(x.view());
//! let settings = Settings { pattern: "2:4".parse()?, ..Settings::published("sparsegpt") };
//! prune_matrix(&mut w, &gram, &settings)?;
//! assert_eq!(w.data.iter().filter(|w| **w == 0.0).count(), 4);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod allocation;
pub mod hessian;
pub mod memory;
pub mod methods;
mod output;
mod pattern;
pub mod pipeline;
mod record;
mod rows;
mod select;
mod selection;
mod settings;
mod share;
pub mod solver;
pub mod sparsellm;
pub mod tune;
mod validate;

pub use allocation::Allocation;
pub use hessian::Gram;
pub use methods::{METHODS, Method, find_method};
pub use output::{FinishedOutput, Output};
pub use pattern::{Pattern, Scope, count, holds, layer_sparsity, measured_sparsity};
pub use pipeline::{Calibration, Plan, needs_text, prune_model, tune_pruned};
pub use record::{LayerReport, LinearReport, nulls_are_infinite};
pub use rows::{Keep, StateType};
pub use selection::Selection;
pub use settings::Settings;
pub use share::Share;
pub use solver::{Problem, Solver, prune_matrix};
pub use validate::validate;

//! Global pruning of pre-trained language models.
//!
//! `sparsellm` removes 50 to 90 % of the weights of a Hugging Face checkpoint, by
//! SparseLLM (Bai et al., NeurIPS 2024) or by the local methods it is measured
//! against: magnitude, Wanda, SparseGPT. This crate is the front door; the command
//! goes through it, too.
//!
//! # Prune a folder
//!
//! ```
//! # let assets = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets");
//! # let temp = tempfile::tempdir()?;
//! # let output = temp.path().join("pruned");
//! use sparsellm::{Pruner, methods::SparseGpt};
//!
//! let report = Pruner::new(format!("{assets}/tiny-llama"))
//!     .method(&SparseGpt)
//!     .sparsity(0.5)
//!     .layers(0..1)
//!     .calibration(format!("{assets}/stories/calibration.txt"))
//!     .samples(4)
//!     .seq_len(64)
//!     .write(&output)?;
//! assert!((report.sparsity - 0.5).abs() < 0.01);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Evaluate
//!
//! ```
//! # let assets = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets");
//! use sparsellm::{Evaluator, Model};
//!
//! let model = Model::open(format!("{assets}/tiny-opt").as_ref())?;
//! let measured = Evaluator::new(&model)
//!     .seq_len(64)
//!     .max_windows(2)
//!     .perplexity(&format!("{assets}/stories/test.txt"))?;
//! assert!(measured.perplexity > 1.0 && measured.windows == 2);
//! # Ok::<(), sparsellm::Error>(())
//! ```
//!
//! # Prune one weight matrix
//!
//! ```
//! use sparsellm::{Gram, Matrix, Settings, prune_matrix};
//!
//! let x = Matrix::new(8, 4, (0..32).map(|i| (i as f32 * 0.7).sin()).collect()); // [tokens, d_in]
//! let mut w = Matrix::new(3, 4, (0..12).map(|i| (i as f32).cos()).collect()); // [d_out, d_in]
//! let mut gram = Gram::new(4);
//! gram.add(x.view());
//! prune_matrix(&mut w, &gram, &Settings { pattern: "3:4".parse()?, ..Settings::published("sparsegpt") })?;
//! assert_eq!(w.data.iter().filter(|w| **w != 0.0).count(), 3);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Read a report
//!
//! ```
//! # let assets = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets");
//! # let temp = tempfile::tempdir()?;
//! # let output = temp.path().join("pruned");
//! use sparsellm::{Pruner, RunRecord, methods::Magnitude};
//!
//! Pruner::new(format!("{assets}/tiny-opt")).method(&Magnitude).write(&output)?;
//! let record = RunRecord::read(&output)?;
//! assert_eq!(record.settings["method"], "magnitude");
//! for layer in &record.layers {
//!     assert!(layer.linears.values().all(|linear| linear.sparsity > 0.69));
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The library prints nothing, parses no arguments and never exits: events reach the
//! caller through one [`Observer`], whose error ends the run.

mod evaluator;
mod inputs;
mod pruner;
mod run_record;

pub use evaluator::Evaluator;
pub use inputs::{find_text, open_model, resolve_seq_len};
pub use pruner::{Profile, Pruner};
pub use run_record::{RunRecord, label, peak_rss_bytes};
pub use sparsellm_base::{BoxError, Error, Event, Observer, Result};
pub use sparsellm_data::{Hub, Use};
pub use sparsellm_eval::Perplexity;
pub use sparsellm_model::Model;
pub use sparsellm_prune::{
    Calibration, Gram, Method, Pattern, Settings, find_method, methods, prune_matrix,
};
pub use sparsellm_report::PruneReport;
pub use sparsellm_tensor::Matrix;

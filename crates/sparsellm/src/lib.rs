//! Global pruning of pre-trained language models.
//!
//! `sparsellm` removes 50 to 90 % of the weights of a Hugging Face checkpoint, with SparseLLM
//! (Bai et al., NeurIPS 2024) or with the local methods that it is compared with: magnitude,
//! Wanda and SparseGPT. This crate is the front door to the others, and the command uses it, too.
//!
//! # Prune a folder
//!
//! A run needs a model, a text to calibrate on and a folder for the result; everything else has
//! defaults. This example prunes the first layer of a small model.
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
//! # Measure perplexity
//!
//! The perplexity says how well a model predicts a text; a lower value is better.
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
//! A local method needs no model: a weight and the Gram matrix of its inputs are enough. The
//! pattern `3:4` leaves one of every four weights in a row.
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
//! # Read a run's record
//!
//! Every run leaves `sparsellm.json` in its output folder: its settings, the digests of its
//! inputs, and the sparsity of every linear.
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
//! The library prints nothing, parses no arguments and never exits. It reports its progress as
//! [`Event`]s to an [`Observer`], which can end the run by returning an error.

mod evaluator;
mod inputs;
mod pruner;
mod run_record;
mod tuner;

pub use evaluator::Evaluator;
pub use inputs::{find_text, open_model, resolve_seq_len};
pub use pruner::{Profile, Pruner};
pub use run_record::{RunRecord, label, peak_rss_bytes};
pub use sparsellm_base::{BoxError, Error, Event, Observer, Result};
pub use sparsellm_data::{Hub, Use};
pub use sparsellm_eval::Perplexity;
pub use sparsellm_model::Model;
pub use sparsellm_prune::{
    Calibration, Gram, Method, Pattern, Settings, StateType, find_method, methods, prune_matrix,
};
pub use sparsellm_report::PruneReport;
pub use sparsellm_tensor::Matrix;
pub use tuner::{TunedReport, Tuner};

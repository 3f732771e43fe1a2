//! Reports of pruning runs. A [`Sweep`] holds the settings and the figures of many runs;
//! [`csv`], [`markdown`] and [`html`] render it as tables and figures, and [`write()`] writes
//! the text to a file. The same sweep always renders to the same bytes. A [`PruneReport`] is
//! the report of one run, as the command prints it.
//!
//! This example reads a sweep from `results.json` and renders it:
//!
//! ```
//! use sparsellm_report::{Sweep, markdown};
//!
//! let results = r#"{
//!     "title": "A small sweep",
//!     "version": "0.1.0",
//!     "dense": [{
//!         "model": "tiny-llama",
//!         "perplexity": [{"data": "stories", "perplexity": 29.19, "windows": 40, "seq_len": 512}]
//!     }],
//!     "runs": [{
//!         "model": "tiny-llama", "method": "wanda", "pattern": "50%",
//!         "settings": {"seed": "0"}, "sparsity": 0.5, "layers": [],
//!         "perplexity": [{"data": "stories", "perplexity": 38.5, "windows": 40, "seq_len": 512}]
//!     }]
//! }"#;
//! let sweep: Sweep = serde_json::from_str(results)?;
//! let report = markdown(&sweep);
//! assert!(report.starts_with("# A small sweep"));
//! assert!(report.contains("| stories | 29.19 | 38.50 | 40 | 512 |"));
//! # Ok::<(), serde_json::Error>(())
//! ```
//!
//! The JSON that a run prints, and the `sparsellm.json` that it leaves beside the pruned
//! weights, list the decoder layers as [`LayerReport`](sparsellm_prune::LayerReport)s:
//!
//! ```
//! use sparsellm_prune::LayerReport;
//!
//! let record = r#"{"layers": [{
//!     "index": 0,
//!     "linears": {"mlp.up_proj": {"sparsity": 0.7, "error": 0.25}},
//!     "ffn_error": [0.5, 0.125],
//!     "kept_epoch": 2
//! }]}"#;
//! let record: serde_json::Value = serde_json::from_str(record)?;
//! let layers: Vec<LayerReport> = serde_json::from_value(record["layers"].clone())?;
//! assert_eq!(layers[0].linears["mlp.up_proj"].sparsity, 0.7);
//! // The error of the feed-forward network after the epoch that was kept.
//! assert_eq!(layers[0].ffn_error[layers[0].kept_epoch - 1], 0.125);
//! # Ok::<(), serde_json::Error>(())
//! ```

mod axis;
mod csv;
mod document;
mod figures;
mod format;
mod group;
mod html;
mod markdown;
mod means;
mod one;
mod page;
mod plot;
mod run;
mod sections;
mod stat;
mod sweep;
mod write;

pub use csv::csv;
pub use html::html;
pub use markdown::markdown;
pub use run::{PerplexityReport, PruneReport};
pub use sweep::{Dense, Measured, Run, Sweep};
pub use write::write;

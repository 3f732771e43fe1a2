//! Measures the quality of a model: its [perplexity](perplexity()) on a text, and its accuracy on
//! zero-shot [tasks]. Both follow published protocols, so that their numbers can be compared with
//! those of SparseLLM's authors and of lm-evaluation-harness.
//!
//! Every function that takes a communicator is collective: all ranks call it, and each measures
//! its share of the windows or questions.
//!
//! ```
//! # let assets = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets"));
//! use sparsellm_base::Observer;
//! use sparsellm_eval::perplexity;
//! use sparsellm_model::Model;
//! use sparsellm_ranks::Local;
//!
//! let model = Model::open(&assets.join("tiny-llama"))?;
//! let source = sparsellm_data::Source::file(&assets.join("stories/test.txt").to_string_lossy())?;
//! // The first four windows of 128 tokens each.
//! let mut observe = Observer::silent();
//! let windows = source.windows(128, Some(4), &model.checkpoint, &mut observe)?;
//! let measured = perplexity(&model, &windows, "stories", &Local, &mut observe)?;
//! assert_eq!((measured.windows, measured.tokens), (4, 512));
//! assert!(measured.perplexity < 100.0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod batch;
mod head;
mod likelihood;
mod perplexity;
pub mod tasks;

pub use likelihood::{Likelihood, Request, likelihoods};
pub use perplexity::{Perplexity, perplexity};
pub use tasks::TaskReport;

//! Global pruning of pre-trained language models.
//!
//! `sparsellm` removes 50 to 90 % of the weights of a Hugging Face checkpoint,
//! by SparseLLM (Bai et al., NeurIPS 2024) or by the local methods it is
//! measured against: magnitude, Wanda, SparseGPT.
//!
//! ```no_run
//! use sparsellm::{
//!     Model, Settings, Tokenizer, Writer, checkpoint::Existing, pipeline, ranks::Local, text::Source,
//! };
//! use serde_json::json;
//! # fn main() -> sparsellm::Result<()> {
//! let model = Model::open("SmolLM2-135M".as_ref())?;
//! let text = Source::file("train.txt")?;
//! let segments = text.segments(128, 2048, 0, || Tokenizer::of(&model.checkpoint))?;
//! let calibration = pipeline::Calibration::new(segments);
//! let run = json!({ "calibration": "train.txt" });
//! let mut writer =
//!     Writer::create(&model.checkpoint, "pruned".as_ref(), &run, Existing::default(), &Local)?;
//! let layers = pipeline::prune(
//!     &model, Some(&calibration), &Settings::default(), None, &mut writer, &Local,
//!     &mut |event| Ok(println!("{event:?}")),
//! )?;
//! writer.finish(&json!({ "layers": layers }))?.publish()
//! # }
//! ```
//!
//! The library prints nothing, parses no arguments and never exits: events
//! reach the caller through one observer.

pub mod checkpoint;
mod dtype;
pub mod error;
pub mod eval;
pub mod event;
pub mod hub;
pub mod linalg;
pub mod model;
pub mod pipeline;
pub mod profile;
pub mod prune;
pub mod ranks;
pub mod report;
pub mod settings;
pub mod text;

pub use checkpoint::{Checkpoint, Writer};
pub use error::{Error, Result};
pub use eval::perplexity;
pub use event::Event;
pub use hub::Hub;
pub use model::Model;
pub use pipeline::prune;
pub use prune::{Method, Pattern};
pub use settings::Settings;
pub use text::Tokenizer;

//! Texts for calibration and measurement: files of many kinds, the authors' data sets, and
//! the Hugging Face hub.
//!
//! ```
//! # let assets = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets");
//! use sparsellm_base::Observer;
//! use sparsellm_data::Source;
//! use std::path::PathBuf;
//!
//! let model = PathBuf::from(format!("{assets}/tiny-llama"));
//! let source = Source::file(&format!("{assets}/stories/test.txt"))?;
//! let windows = source.windows(64, Some(3), &model, &mut Observer::silent())?;
//! assert_eq!((windows.count(), windows.tokens.len()), (3, 192));
//! # Ok::<(), sparsellm_base::Error>(())
//! ```

pub mod hub;
mod npy;
mod parquet;
pub mod rows;
pub mod sampling;
mod source;
mod text_mode;
mod texts;

pub use hub::Hub;
pub use source::{Source, Use};

//! Texts for calibration and measurement: files of many kinds, the authors' data sets, and
//! the Hugging Face hub.
//!
//! ```
//! # let assets = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets");
//! use sparsellm_data::Source;
//! use sparsellm_text::Tokenizer;
//!
//! let tokenizer = || Tokenizer::from_folder(format!("{assets}/tiny-llama").as_ref());
//! let source = Source::file(&format!("{assets}/stories/test.txt"))?;
//! let windows = source.windows(64, Some(3), tokenizer)?;
//! assert_eq!((windows.count(), windows.tokens.len()), (3, 192));
//! # Ok::<(), sparsellm_base::Error>(())
//! ```

pub mod hub;
mod npy;
mod parquet;
pub mod rows;
pub mod sampling;
mod source;

pub use hub::Hub;
pub use source::{Source, Use};
